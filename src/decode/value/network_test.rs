//! Texts and send bytes that a PostgreSQL 15 gave for the same addresses.

use super::numeric_test::unhex;
use super::*;

type Print = fn(Encoded<'_>, &mut String) -> Result<(), ValueError>;

fn text_of(print: Print, encoded: Encoded<'_>) -> Result<String, ValueError> {
    let mut out = String::new();
    print(encoded, &mut out).map(|()| out)
}

#[test]
fn an_inet_is_printed_as_the_server_does() {
    let pairs = [
        ("0220000401020304", "1.2.3.4"),
        ("0218000401020304", "1.2.3.4/24"),
        ("0200000400000000", "0.0.0.0/0"),
        ("0380001000000000000000000000000000000000", "::"),
        ("0380001000000000000000000000000000000001", "::1"),
        ("0380001000000000000000000000000001020304", "::1.2.3.4"),
        ("0380001000000000000000000000ffff01020304", "::ffff:1.2.3.4"),
        ("038000100000000000000000ffff000001020304", "::ffff:0:102:304"),
        ("0380001020010db8000000000000000000000001", "2001:db8::1"),
        ("0380001020010db8000000010001000100010001", "2001:db8:0:1:1:1:1:1"),
        ("0380001020010000000000010000000000000001", "2001:0:0:1::1"),
        ("0380001000010002000300040005000600070000", "1:2:3:4:5:6:7:0"),
        ("0380001000010002000300040005000600000000", "1:2:3:4:5:6::"),
        ("0380001000000002000300040005000600070008", "0:2:3:4:5:6:7:8"),
        ("03400010fe800000000000000000000000000001", "fe80::1/64"),
        ("0360001000000000000000000000ffff01020304", "::ffff:1.2.3.4/96"),
        ("0380001000000000000000000000fffe01020304", "::fffe:102:304"),
        ("0380001000000000000000000005ffff01020304", "::5:ffff:102:304"),
        ("0380001000000000000000000000000000010000", "::0.1.0.0"),
        ("0380001000010000000000020000000000030004", "1::2:0:0:3:4"),
        ("037f0010abcdef0123456789abcdef0123456789", "abcd:ef01:2345:6789:abcd:ef01:2345:6789/127"),
        ("0380001000000000000000000000000100000000", "::1:0:0"),
    ];
    for (sent, text) in pairs {
        assert_eq!(text_of(inet, Encoded::Binary(&unhex(sent))).as_deref(), Ok(text));
        assert_eq!(text_of(inet, Encoded::Text(text.as_bytes())).as_deref(), Ok(text));
    }
}

#[test]
fn a_cidr_always_has_its_mask() {
    let pairs = [
        ("0220010401020304", "1.2.3.4/32"),
        ("020801040a000000", "10.0.0.0/8"),
        ("0380011000000000000000000000000000000001", "::1/128"),
        ("0320011020010db8000000000000000000000000", "2001:db8::/32"),
        ("0300011000000000000000000000000000000000", "::/0"),
    ];
    for (sent, text) in pairs {
        assert_eq!(text_of(cidr, Encoded::Binary(&unhex(sent))).as_deref(), Ok(text));
    }
}

#[test]
fn d1_a_broken_address_is_refused() {
    // Mask too long, family unknown, length against bytes, a cidr for an inet, nothing at all.
    for sent in ["0221000401020304", "0420000401020304", "02200004010203", "0220001001020304", "0220010401020304", ""] {
        assert!(text_of(inet, Encoded::Binary(&unhex(sent))).is_err(), "{sent}");
    }
    assert!(text_of(inet, Encoded::Text(b"localhost")).is_err());
    assert!(text_of(macaddr, Encoded::Binary(&[0; 8])).is_err());
    let address = [0x08, 0x00, 0x2B, 0x01, 0x02, 0x03];
    assert_eq!(text_of(macaddr, Encoded::Binary(&address)).as_deref(), Ok("08:00:2b:01:02:03"));
}
