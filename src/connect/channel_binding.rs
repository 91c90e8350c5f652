//! `tls-server-end-point` (RFC 5929, section 4): the hash of the server's certificate that SCRAM-SHA-256-PLUS signs.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The hash, by the certificate's signature algorithm, MD5 and SHA-1 replaced by SHA-256. `None` where the RFC defines none
/// (Ed25519) or the hash hides in parameters (RSASSA-PSS); authentication then goes without binding.
pub(super) fn tls_server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    match parsed.signature_algorithm().oid.to_string().as_str() {
        // md5, sha1, sha256 WithRSAEncryption; ecdsa-with-SHA1, -SHA256; dsa-with-sha1, -sha256
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => Some(hash::<Sha256>(certificate)),
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => Some(hash::<Sha256>(certificate)),
        "1.2.840.10040.4.3" | "2.16.840.1.101.3.4.3.2" => Some(hash::<Sha256>(certificate)),
        // sha224, sha384, sha512 of the same families
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Some(hash::<Sha224>(certificate)),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(hash::<Sha384>(certificate)),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(hash::<Sha512>(certificate)),
        _ => None,
    }
}

fn hash<D: Digest>(certificate: &[u8]) -> Vec<u8> {
    D::digest(certificate).to_vec()
}
