//! Tenants, their users and clients, and where they connect from. Nothing is stored for a user: everything about it follows
//! from tenant and rank, so a million users cost nothing and user 17 is the same person in every row.

use super::random::Random;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Addresses that the whole population shares, by Zipf's law: offices and carriers first.
const ADDRESSES: u64 = 200_000;
const CLIENTS_PER_TENANT: u64 = 12;

const TENANT_NAMES: [&str; 10] = [
    "みらい銀行",
    "Contoso, Ltd.",
    "北海電力サービス",
    "O'Brien \"Cloud\" Insurance",
    "東京クレジット",
    "Zürich Retail AG",
    "さくら証券",
    "Fabrikam",
    "日本郵便パートナー🚀",
    "tenant\\with\\backslashes",
];
const FAMILY_NAMES: [&str; 12] =
    ["佐藤", "鈴木", "高橋", "田中", "伊藤", "渡辺", "Yamamoto", "Smith", "O'Connor", "García", "Müller", "김"];
const GIVEN_NAMES: [&str; 12] =
    ["太郎", "花子", "翔太", "さくら", "健一", "美咲", "Kenji", "Alice", "Seán", "José", "Jürgen", "민준"];
/// Names that break copies; the last is what COPY writes for NULL.
const AWKWARD_NAMES: [&str; 10] = [
    "Bob \"the builder\", Jr.",
    "山田\n太郎",
    "tab\there",
    "back\\slash",
    "絵文字👩‍👩‍👧‍👦🦊",
    "comma, comma,,",
    " leading and trailing ",
    "it's 'quoted'",
    "carriage\r\nreturn",
    "\\N",
];
const CLIENT_NAMES: [&str; 6] =
    ["モバイルアプリ", "Web Portal", "Partner API, v2", "管理コンソール", "IoT \"Gateway\"", "batch-client"];
const USER_AGENTS: [&str; 10] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "okhttp/4.12.0",
    "BankApp/7.3.1 (jp.example.bank; build:1284; iOS 17.5.1) Alamofire/5.9.1",
    "python-requests/2.32.3",
    "curl/8.8.0",
    "みらいアプリ/2.0 (Android 14; ja-JP) \"beta\", build\\9",
];

/// One customer of the identity provider.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) id: String,
    pub(super) name: &'static str,
    pub(super) users: u64,
    salt: u64,
}

/// A user, as much of it as an event tells.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) number: u64,
}

#[derive(Debug)]
pub(super) struct Population {
    tenants: Vec<Tenant>,
    users: u64,
    salt: u64,
}

impl Population {
    pub(super) fn new(random: &mut Random, tenant_users: &[u64]) -> Self {
        let names = TENANT_NAMES.iter().copied().cycle();
        let tenants: Vec<Tenant> = tenant_users
            .iter()
            .zip(names)
            .map(|(&users, name)| Tenant { id: random.uuid(), name, users: users.max(1), salt: random.next() })
            .collect();
        Self { users: tenants.iter().map(|tenant| tenant.users).sum(), tenants, salt: random.next() }
    }

    /// A tenant, as likely as it is large.
    pub(super) fn tenant(&self, random: &mut Random) -> &Tenant {
        let mut user = random.below(self.users);
        for tenant in &self.tenants {
            if user < tenant.users {
                return tenant;
            }
            user -= tenant.users;
        }
        &self.tenants[0]
    }

    /// The largest tenant, which attackers like best.
    pub(super) fn largest_tenant(&self) -> &Tenant {
        &self.tenants[0]
    }

    /// An address of the internet: 15 % IPv6, one in 400 unknown.
    pub(super) fn address(&self, random: &mut Random) -> Option<String> {
        if random.one_in(400) {
            return None;
        }
        let rank = random.zipf(ADDRESSES);
        let mut own = Random::new(self.salt ^ rank.wrapping_mul(0x9E37_79B9));
        let bits = own.next();
        if own.percent(15) {
            let bits = u128::from(bits) | u128::from(own.next()) << 64;
            return Some(Ipv6Addr::from_bits(0x2001_0DB8 << 96 | (bits >> 32)).to_string());
        }
        let low = u32::try_from(bits >> 40).unwrap_or(0);
        Some(Ipv4Addr::from_bits(low.wrapping_mul(199) | 0x0100_0001).to_string())
    }
}

impl Tenant {
    /// A user by Zipf's law: few people do most of the work.
    pub(super) fn some_user(&self, random: &mut Random) -> User {
        self.user(random.zipf(self.users))
    }

    /// The user of a rank.
    pub(super) fn user(&self, rank: u64) -> User {
        let mut own = Random::new(self.salt ^ rank.wrapping_mul(0xD1B5_4A32_D192_ED03));
        let id = own.uuid();
        let name = match own.below(100) {
            0 => None,
            1 => Some(String::new()),
            2..=4 => Some(own.pick(&AWKWARD_NAMES).to_owned()),
            _ => Some(format!("{} {}", own.pick(&FAMILY_NAMES), own.pick(&GIVEN_NAMES))),
        };
        let external_id = match own.below(20) {
            0..=2 => None,
            3 => Some(String::new()),
            _ => Some(format!("ext-{rank:08}")),
        };
        User { id, name, external_id, number: rank }
    }

    /// One of the tenant's clients: a UUID for most, a chosen name for some, as a `client_id` may be either.
    pub(super) fn client(&self, random: &mut Random) -> (String, &'static str) {
        let number = random.zipf(CLIENTS_PER_TENANT);
        let mut own = Random::new(self.salt.rotate_left(17) ^ number);
        let name = own.pick(&CLIENT_NAMES);
        let id = if number % 4 == 3 { format!("{name}, client {number}") } else { own.uuid() };
        (id, name)
    }
}

/// A user agent; `NULL` and `''` both occur.
pub(super) fn user_agent(random: &mut Random) -> Option<String> {
    match random.below(100) {
        0 => None,
        1 => Some(String::new()),
        _ => Some(random.pick(&USER_AGENTS).to_owned()),
    }
}
