//! The rows themselves.

use super::detail::{Subject, compact_detail, detail, hook_payload};
use super::event_types::{Attack, event_type};
use super::population::{Population, user_agent};
use super::random::Random;
use chrono::{Datelike, NaiveDateTime, Timelike};

/// A row of one of the two tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Of `security_event`.
    Event(SecurityEvent),
    /// Of `security_event_hook_results`.
    Hook(HookResult),
}

/// A row of `public.security_event`, every value as the text that PostgreSQL reads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the table's columns, in its order")]
pub struct SecurityEvent {
    pub id: String,
    pub event_type: String,
    pub description: String,
    pub tenant_id: String,
    pub tenant_name: String,
    pub client_id: String,
    pub client_name: String,
    pub user_id: Option<String>,
    pub user_name: Option<String>,
    pub external_user_id: Option<String>,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    pub detail: String,
    pub created_at: String,
}

/// A row of `public.security_event_hook_results`, every value as the text that PostgreSQL reads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the table's columns, in its order")]
pub struct HookResult {
    pub id: String,
    pub tenant_id: String,
    pub security_event_id: String,
    pub security_event_type: String,
    pub security_event_hook: String,
    pub security_event_payload: String,
    pub security_event_hook_execution_payload: Option<String>,
    pub status: String,
    pub created_at: String,
    pub updated_at: String,
}

impl SecurityEvent {
    /// The columns in the table's order.
    pub fn values(&self) -> [Option<&str>; 14] {
        [
            Some(&self.id),
            Some(&self.event_type),
            Some(&self.description),
            Some(&self.tenant_id),
            Some(&self.tenant_name),
            Some(&self.client_id),
            Some(&self.client_name),
            self.user_id.as_deref(),
            self.user_name.as_deref(),
            self.external_user_id.as_deref(),
            self.ip_address.as_deref(),
            self.user_agent.as_deref(),
            Some(&self.detail),
            Some(&self.created_at),
        ]
    }
}

impl HookResult {
    /// The columns in the table's order.
    pub fn values(&self) -> [Option<&str>; 10] {
        [
            Some(&self.id),
            Some(&self.tenant_id),
            Some(&self.security_event_id),
            Some(&self.security_event_type),
            Some(&self.security_event_hook),
            Some(&self.security_event_payload),
            self.security_event_hook_execution_payload.as_deref(),
            Some(&self.status),
            Some(&self.created_at),
            Some(&self.updated_at),
        ]
    }
}

/// One in this many events knows no user: a client's own token, or a failure before anybody was recognised.
const ANONYMOUS_EVERY: u64 = 12;

pub(super) fn security_event(
    random: &mut Random,
    population: &Population,
    attack: Option<Attack<'_>>,
    created_at: NaiveDateTime,
    compact: bool,
) -> SecurityEvent {
    let (tenant, user, address, kind) = match attack {
        Some(attack) => (attack.tenant, Some(attack.user), Some(attack.address), attack.event_type.to_owned()),
        None => {
            let tenant = population.tenant(random);
            let user = if random.one_in(ANONYMOUS_EVERY) { None } else { Some(tenant.some_user(random)) };
            (tenant, user, population.address(random), event_type(random))
        }
    };
    let (client_id, client_name) = tenant.client(random);
    let user_agent = user_agent(random);
    let subject = Subject {
        event_type: &kind,
        client_id: &client_id,
        user: user.as_ref(),
        address: address.as_deref(),
        user_agent: user_agent.as_deref(),
    };
    let detail = if compact { compact_detail(random, &subject) } else { detail(random, &subject) };
    let description = match random.below(50) {
        0 => format!("{kind}: 失敗, \"再試行\"\n\tし\\て下さい"),
        1 => String::new(),
        _ => kind.replace('_', " "),
    };
    let (user_id, user_name, external_user_id) = match user {
        Some(user) => (Some(user.id), user.name, user.external_id),
        None => (None, None, None),
    };
    SecurityEvent {
        id: random.uuid(),
        event_type: kind,
        description,
        tenant_id: tenant.id.clone(),
        tenant_name: tenant.name.to_owned(),
        client_id,
        client_name: client_name.to_owned(),
        user_id,
        user_name,
        external_user_id,
        ip_address: address,
        user_agent,
        detail,
        created_at: timestamp_text(created_at),
    }
}

pub(super) fn hook_result(random: &mut Random, event: &SecurityEvent, created_at: NaiveDateTime) -> HookResult {
    let succeeded = random.percent(93);
    let execution = random.percent(70).then(|| hook_payload(random, &event.id, "{}"));
    HookResult {
        id: random.uuid(),
        tenant_id: event.tenant_id.clone(),
        security_event_id: event.id.clone(),
        security_event_type: event.event_type.clone(),
        security_event_hook: random.pick(&["SLACK", "WEBHOOK", "SSF", "EMAIL", "DATADOG_LOG"]).to_owned(),
        security_event_payload: hook_payload(random, &event.id, &event.detail),
        security_event_hook_execution_payload: execution,
        status: if succeeded { "SUCCESS" } else { "FAILURE" }.to_owned(),
        created_at: timestamp_text(created_at),
        updated_at: timestamp_text(created_at),
    }
}

/// `2026-01-02 03:04:05.000006`; by hand, because chrono interprets its format anew for every row.
fn timestamp_text(at: NaiveDateTime) -> String {
    let mut text = Vec::with_capacity(26);
    push_digits(&mut text, at.year().unsigned_abs(), 4);
    for (before, number) in
        [(b'-', at.month()), (b'-', at.day()), (b' ', at.hour()), (b':', at.minute()), (b':', at.second())]
    {
        text.push(before);
        push_digits(&mut text, number, 2);
    }
    text.push(b'.');
    push_digits(&mut text, at.nanosecond() / 1000, 6);
    String::from_utf8(text).unwrap_or_default()
}

fn push_digits(text: &mut Vec<u8>, number: u32, digits: u32) {
    for place in (0..digits).rev() {
        let digit = number / 10_u32.pow(place) % 10;
        text.push(b'0' + u8::try_from(digit).unwrap_or(0));
    }
}
