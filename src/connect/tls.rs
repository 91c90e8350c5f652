//! The TLS client: files, authorities and rustls' configuration. The crypto provider is named, never the process's default,
//! because other libraries in this process may install another one.

use super::error::ConnectError;
use super::settings::{Address, RootCertificate, Settings, SslMode};
use super::verifier::{Authorities, Check, ServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The handshake over a connection whose server said yes to TLS.
pub(super) async fn handshake(settings: &Settings, stream: TcpStream) -> Result<TlsStream<TcpStream>, ConnectError> {
    let endpoint = settings.endpoint();
    let name = server_name(settings)?;
    let owned = settings.clone();
    // Files, and the system's store is hundreds of them.
    let configuration = tokio::task::spawn_blocking(move || client_configuration(&owned))
        .await
        .map_err(|error| ConnectError::Lost { endpoint: endpoint.clone(), reason: error.to_string() })??;
    TlsConnector::from(Arc::new(configuration))
        .connect(name, stream)
        .await
        .map_err(|error| ConnectError::from_io(&error, endpoint))
}

fn server_name(settings: &Settings) -> Result<ServerName<'static>, ConnectError> {
    let Address::Tcp { host, .. } = &settings.address else {
        return Err(ConnectError::TlsRefused { endpoint: settings.endpoint() });
    };
    ServerName::try_from(host.clone()).map_err(|error| ConnectError::Certificate {
        endpoint: settings.endpoint(),
        reason: error.to_string(),
        remedy: "connect by a valid host name or address",
    })
}

/// Everything that `sslmode`, `sslrootcert`, `sslcert` and `sslkey` say. Reads files; blocking.
pub(super) fn client_configuration(settings: &Settings) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = ServerVerifier { check: check(settings)?, algorithms };
    let broken = |error: rustls::Error| ConnectError::from_tls(&error, settings.endpoint());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(broken)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match &settings.client_certificate {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates("sslcert", certificate)?;
            let mismatch = |error: rustls::Error| refused("sslcert", certificate, error.to_string());
            builder.with_client_auth_cert(chain, private_key(key)?).map_err(mismatch)
        }
    }
}

/// A root certificate makes even `require` check the chain, as libpq does.
fn check(settings: &Settings) -> Result<Check, ConnectError> {
    let authorities = match &settings.root_certificate {
        Some(RootCertificate::System) => Some(system_authorities()?),
        Some(RootCertificate::File(path)) => Some(file_authorities(path)?),
        None => None,
    };
    match (settings.ssl_mode, authorities) {
        (SslMode::VerifyFull, Some(authorities)) => Ok(Check::ChainAndName(authorities)),
        (SslMode::VerifyFull | SslMode::VerifyCa, None) => {
            let reason = "no such file: a root certificate is needed to verify the server, or sslrootcert=system";
            Err(refused("sslrootcert", Path::new("~/.postgresql/root.crt"), reason.to_owned()))
        }
        (_, Some(authorities)) => Ok(Check::Chain(authorities)),
        (_, None) => Ok(Check::Nothing),
    }
}

fn system_authorities() -> Result<Authorities, ConnectError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        let reason = "the operating system has no root certificates: install ca-certificates".to_owned();
        return Err(refused("sslrootcert", Path::new("system"), reason));
    }
    Ok(Authorities { store, exact: Vec::new() })
}

fn file_authorities(path: &Path) -> Result<Authorities, ConnectError> {
    let exact = certificates("sslrootcert", path)?;
    let mut store = RootCertStore::empty();
    for certificate in &exact {
        let added = store.add(certificate.clone());
        added.map_err(|error| refused("sslrootcert", path, error.to_string()))?;
    }
    Ok(Authorities { store, exact })
}

fn certificates(parameter: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let unreadable = |error: rustls::pki_types::pem::Error| refused(parameter, path, error.to_string());
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect();
    let all = all.map_err(unreadable)?;
    if all.is_empty() { Err(refused(parameter, path, "no certificate in it".to_owned())) } else { Ok(all) }
}

/// libpq's rule: nobody else may read it, but a key that root owns may be readable by its group.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ConnectError> {
    let metadata = std::fs::metadata(path).map_err(|error| refused("sslkey", path, error.to_string()))?;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(refused("sslkey", path, "group or others may read it: chmod 600 it".to_owned()));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| refused("sslkey", path, error.to_string()))
}

fn refused(parameter: &'static str, path: &Path, reason: String) -> ConnectError {
    ConnectError::TlsFile { parameter, path: path.display().to_string(), reason }
}
