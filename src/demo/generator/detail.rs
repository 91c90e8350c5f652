//! `detail` and the payloads of hooks, as JSON text.

use super::population::User;
use super::random::Random;
use std::fmt::Write;

const LANGUAGES: [&str; 4] = ["ja-JP,ja;q=0.9,en-US;q=0.8", "en-US,en;q=0.9", "de-DE", "ko-KR,ko;q=0.9"];
const SCOPES: [&str; 6] = ["openid", "profile", "email", "offline_access", "account:read", "振込:実行"];
const NOTES: [&str; 8] = [
    "通常の操作です",
    "line one\nline two\r\nline three",
    "said \"hello, world\", then left",
    "C:\\Users\\山田\\Desktop",
    "tab\tseparated\tvalues, with commas",
    "🎉👩‍💻🇯🇵 絵文字とゼロ幅結合子",
    "control \u{1} and \u{7f}, line separator \u{2028}",
    "<script>alert('x')</script> & <b>",
];

/// What an event is about, as far as its detail repeats it.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) event_type: &'a str,
    pub(super) client_id: &'a str,
    pub(super) user: Option<&'a User>,
    pub(super) address: Option<&'a str>,
    pub(super) user_agent: Option<&'a str>,
}

/// 0.5 to 1.6 KB; one in 500 is `{}`, one in 1000 is over 8 KB.
pub(super) fn detail(random: &mut Random, subject: &Subject<'_>) -> String {
    let shape = random.below(1000);
    if shape < 2 {
        return "{}".to_owned();
    }
    let mut json = String::with_capacity(1700);
    json.push_str("{\"user\": ");
    push_user(&mut json, random, subject.user);
    json.push_str(", \"action\": ");
    push_string(&mut json, subject.event_type);
    json.push_str(", \"headers\": ");
    push_headers(&mut json, random, subject);
    json.push_str(", \"resource\": ");
    push_string(&mut json, subject.client_id);
    let _ = write!(
        json,
        ", \"request_url\": \"https://idp.example.com/{}/v1/authorizations?state={:x}&scope=openid%20profile\"",
        random.below(1000),
        random.next()
    );
    if random.percent(60) {
        json.push_str(", \"scopes\": ");
        push_scopes(&mut json, random);
    }
    if random.percent(40) {
        json.push_str(", \"note\": ");
        push_string(&mut json, random.pick(&NOTES));
    }
    let items = if shape == 2 { random.between(60, 120) } else { random.below(6) };
    push_items(&mut json, random, items);
    json.push('}');
    json
}

/// About 200 bytes, for the guide's row of 500.
pub(super) fn compact_detail(random: &mut Random, subject: &Subject<'_>) -> String {
    let mut json = String::with_capacity(200);
    json.push_str("{\"action\": ");
    push_string(&mut json, subject.event_type);
    let _ = write!(json, ", \"request_id\": \"{:016x}{:016x}\"", random.next(), random.next());
    let _ = write!(
        json,
        ", \"resource\": \"/v1/me\", \"status\": {}, \"session\": \"{}\"}}",
        random.between(200, 504),
        random.uuid()
    );
    json
}

/// 3 to 6 KB: what was sent to the hook, the event's own detail first.
pub(super) fn hook_payload(random: &mut Random, event_id: &str, event_detail: &str) -> String {
    let len = random.index(2800) + 3000;
    let mut json = String::with_capacity(6600);
    let _ = write!(
        json,
        "{{\"jti\": \"{event_id}\", \"iss\": \"https://idp.example.com\", \"iat\": {}",
        random.below(1 << 31)
    );
    if event_detail.len() < 2000 {
        let _ = write!(json, ", \"event\": {event_detail}");
    }
    json.push_str(", \"claims\": [");
    let mut first = true;
    while first || json.len() < len {
        if !first {
            json.push_str(", ");
        }
        first = false;
        let _ = write!(json, "{{\"claim\": \"{}\", \"at\": {}, \"value\": ", random.uuid(), random.below(1 << 31));
        push_string(&mut json, random.pick(&NOTES));
        json.push('}');
    }
    json.push_str("]}");
    json
}

fn push_user(json: &mut String, random: &mut Random, user: Option<&User>) {
    let Some(user) = user else {
        json.push_str("null");
        return;
    };
    let _ = write!(json, "{{\"sub\": \"{}\", \"name\": ", user.id);
    match &user.name {
        Some(name) => push_string(json, name),
        None => json.push_str("null"),
    }
    let _ = write!(
        json,
        ", \"email\": \"user{}@example.com\", \"status\": \"{}\", \"roles\": [[\"operator\", [\"閲覧者\", {}]], []], \
         \"verified\": {}}}",
        user.number,
        random.pick(&["REGISTERED", "IDENTITY_VERIFIED", "LOCKED"]),
        random.below(5),
        random.percent(80)
    );
}

fn push_headers(json: &mut String, random: &mut Random, subject: &Subject<'_>) {
    let _ = write!(
        json,
        "{{\"host\": \"idp.example.com\", \"accept\": \"*/*\", \"accept-language\": \"{}\", \"x-request-id\": \"{}\", \
         \"x-amzn-trace-id\": \"Root=1-{:08x}-{:016x}\", \"content-length\": \"{}\"",
        random.pick(&LANGUAGES),
        random.uuid(),
        random.below(1 << 32),
        random.next(),
        random.below(4096)
    );
    for (name, value) in [("x-forwarded-for", subject.address), ("user-agent", subject.user_agent)] {
        if let Some(value) = value {
            let _ = write!(json, ", \"{name}\": ");
            push_string(json, value);
        }
    }
    json.push('}');
}

fn push_scopes(json: &mut String, random: &mut Random) {
    json.push('[');
    for position in 0..random.between(1, 5) {
        if position > 0 {
            json.push_str(", ");
        }
        push_string(json, random.pick(&SCOPES));
    }
    json.push(']');
}

fn push_items(json: &mut String, random: &mut Random, items: u64) {
    if items == 0 {
        return;
    }
    json.push_str(", \"verified_claims\": [");
    for position in 0..items {
        if position > 0 {
            json.push_str(", ");
        }
        let _ = write!(
            json,
            "{{\"evidence\": [[{}, {}.{:02}], [null, true]], \"document\": \"{}\", \"time\": \"2025-0{}-01T00:00:00+09:00\"}}",
            random.below(100),
            random.below(1_000_000),
            random.below(100),
            random.uuid(),
            random.between(1, 10)
        );
    }
    json.push(']');
}

/// A JSON string. Control characters are escaped, as RFC 8259 demands; U+0000, which jsonb refuses, never occurs.
fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            control if control < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            other => json.push(other),
        }
    }
    json.push('"');
}
