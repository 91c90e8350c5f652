//! Which events happen: the customer's mix, and bursts of credential stuffing.

use super::population::{Population, Tenant, User};
use super::random::Random;

/// The common types and their share in hundredths of a percent.
const COMMON: [(&str, u64); 17] = [
    ("inspect_token_success", 4200),
    ("refresh_token_success", 1300),
    ("login_success", 1000),
    ("userinfo_success", 800),
    ("password_success", 400),
    ("oauth_authorize", 400),
    ("fido2_authentication_success", 350),
    ("fido_uaf_authentication_success", 250),
    ("oauth_authorize_with_session", 300),
    ("email_verification_success", 180),
    ("sms_verification_success", 120),
    ("backchannel_authentication_request_success", 130),
    ("backchannel_authentication_authorize", 120),
    ("password_failure", 120),
    ("logout", 100),
    ("issue_token_success", 90),
    ("inspect_token_failure", 80),
];
const ALL: u64 = 10_000;

/// What the rare built-in types are made of, about a hundred in all.
const RARE_SUBJECTS: [&str; 24] = [
    "user_signup",
    "user_edit",
    "user_get",
    "user_disabled",
    "user_enabled",
    "user_lock",
    "user_deletion",
    "password_reset",
    "password_change",
    "email_verification_request",
    "sms_verification_request",
    "fido2_registration",
    "fido2_reset",
    "fido_uaf_registration",
    "fido_uaf_deregistration",
    "webauthn_registration",
    "authentication_device_registration",
    "backchannel_authentication_deny",
    "oauth_deny",
    "federation_callback",
    "identity_verification_request",
    "revoke_token",
    "server_get_client",
    "organization_member_add",
];
const RARE_OUTCOMES: [&str; 4] = ["success", "failure", "request", "cancel"];
/// Types named after what a tenant has configured: the set is open.
const DYNAMIC_SUBJECTS: [&str; 5] = ["investment_account", "credit_card", "本人確認", "ekyc", "loan-2025"];

/// A type by the mix.
pub(super) fn event_type(random: &mut Random) -> String {
    let mut share = random.below(ALL);
    for (name, weight) in COMMON {
        if share < weight {
            return name.to_owned();
        }
        share -= weight;
    }
    if random.one_in(5) {
        return format!("{}_application_{}", random.pick(&DYNAMIC_SUBJECTS), random.pick(&["success", "failure"]));
    }
    format!("{}_{}", random.pick(&RARE_SUBJECTS), random.pick(&RARE_OUTCOMES))
}

/// Events from the first event of one burst to that of the next.
const BURST_INTERVAL: u64 = 60_000;
const BURST_LEN: u64 = 2_000;
/// The first burst comes early, so that small data sets have one too.
const BURST_OFFSET: u64 = 2_500;

/// Where in the rhythm of attacks the stream of events is.
#[derive(Debug, Default)]
pub(super) struct Burst {
    events: u64,
    network: u64,
}

/// One attempt of credential stuffing: half of them fail.
#[derive(Debug)]
pub(super) struct Attack<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) user: User,
    pub(super) address: String,
    pub(super) event_type: &'static str,
}

impl Burst {
    /// The attack that the next event is part of, if any: one /24, a new user each time, a few addresses doing most of it.
    pub(super) fn next<'a>(&mut self, random: &mut Random, population: &'a Population) -> Option<Attack<'a>> {
        let position = (self.events + BURST_INTERVAL - BURST_OFFSET) % BURST_INTERVAL;
        self.events += 1;
        if position >= BURST_LEN {
            return None;
        }
        if position == 0 {
            self.network = random.below(1 << 8);
        }
        let tenant = population.largest_tenant();
        let user = tenant.user((self.events * 37) % tenant.users);
        let address = format!("203.0.{}.{}", self.network, random.zipf(254) + 1);
        let event_type = if random.percent(50) { "password_failure" } else { "password_success" };
        Some(Attack { tenant, user, address, event_type })
    }
}
