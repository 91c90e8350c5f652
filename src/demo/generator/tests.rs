use super::*;
use chrono::NaiveDate;
use std::collections::{BTreeMap, BTreeSet, HashMap};

fn noon() -> NaiveDateTime {
    NaiveDate::from_ymd_opt(2026, 3, 1).unwrap().and_hms_opt(12, 0, 0).unwrap()
}

fn made(days: u32, rows: u64) -> (Vec<SecurityEvent>, Vec<HookResult>) {
    let mut generator = Generator::new(GeneratorOptions::with_seed(7));
    let (mut events, mut hooks) = (Vec::new(), Vec::new());
    for row in generator.history(days, rows, noon()) {
        match row {
            Row::Event(event) => events.push(event),
            Row::Hook(hook) => hooks.push(hook),
        }
    }
    (events, hooks)
}

#[test]
fn a_seed_makes_the_same_rows_for_ever() {
    let (events, hooks) = made(3, 1000);
    assert_eq!((events.clone(), hooks.clone()), made(3, 1000));
    assert_eq!((events.len(), hooks.len()), (900, 100));
    let mut other = Generator::new(GeneratorOptions::with_seed(8));
    assert!(other.history(3, 1000, noon()).next() != Some(Row::Event(events[0].clone())));
    assert_eq!(events[0].created_at, "2026-02-26 00:00:00.000000");
}

#[test]
fn identifiers_are_unique_and_json_is_json() {
    let (events, hooks) = made(10, 20_000);
    let ids: BTreeSet<&str> =
        events.iter().map(|event| event.id.as_str()).chain(hooks.iter().map(|h| h.id.as_str())).collect();
    assert_eq!(ids.len(), 20_000);
    for text in events.iter().map(|event| &event.detail).chain(hooks.iter().map(|hook| &hook.security_event_payload)) {
        serde_json::from_str::<serde_json::Value>(text).unwrap();
    }
}

#[test]
fn every_day_has_its_first_and_its_last_microsecond() {
    let (events, hooks) = made(30, 9_000);
    let instants: Vec<&str> =
        events.iter().map(|e| e.created_at.as_str()).chain(hooks.iter().map(|h| h.created_at.as_str())).collect();
    let days: BTreeSet<&str> = instants.iter().map(|instant| &instant[..10]).collect();
    assert_eq!(days.len(), 31);
    for day in &days {
        assert!(instants.contains(&format!("{day} 00:00:00.000000").as_str()), "{day}");
        if *day != "2026-03-01" {
            assert!(instants.contains(&format!("{day} 23:59:59.999999").as_str()), "{day}");
        }
    }
    assert!(instants.iter().all(|instant| *instant <= "2026-03-01 12:00:00.000000"));
    assert!(instants.windows(2).any(|pair| pair[0] > pair[1]), "rows arrive out of order");
}

#[test]
fn the_mix_is_the_customers() {
    let (events, _) = made(20, 100_000);
    let mut types: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events.iter().filter(|event| !event.ip_address.as_deref().unwrap_or("").starts_with("203.0.")) {
        *types.entry(&event.event_type).or_default() += 1;
    }
    let share = |name: &str| types[name] * 1000 / events.len();
    assert!((400..=430).contains(&share("inspect_token_success")), "{}", share("inspect_token_success"));
    assert!((115..=140).contains(&share("refresh_token_success")));
    assert!((8..=14).contains(&share("password_failure")));
    assert!(types.len() > 100, "{}", types.len());
    assert!(types.keys().any(|name| name.ends_with("_application_success")));
    let ipv6 = events.iter().filter(|event| event.ip_address.as_deref().is_some_and(|ip| ip.contains(':'))).count();
    assert!((120..=180).contains(&(ipv6 * 1000 / events.len())), "{ipv6}");
}

#[test]
fn awkward_values_all_occur() {
    let (events, _) = made(20, 100_000);
    let has = |test: &dyn Fn(&SecurityEvent) -> bool| events.iter().any(test);
    assert!(has(&|event| event.ip_address.is_none()));
    assert!(has(&|event| event.user_name.is_none() && event.user_id.is_some()));
    assert!(has(&|event| event.user_name.as_deref() == Some("")));
    assert!(has(&|event| event.user_name.as_deref() == Some("\\N")));
    assert!(has(&|event| event.external_user_id.as_deref() == Some("")));
    assert!(has(&|event| event.user_agent.is_none()) && has(&|event| event.user_agent.as_deref() == Some("")));
    assert!(has(&|event| event.detail == "{}"));
    assert!(has(&|event| event.detail.len() > 8192));
    assert!(has(&|event| event.description.contains(['\n', '\t', '\\', '"', ','])));
    assert!(has(&|event| event.user_name.as_deref().is_some_and(|name| name.contains('🦊'))));
    let usual: Vec<usize> =
        events.iter().map(|event| event.detail.len()).filter(|len| (500..=1700).contains(len)).collect();
    assert!(usual.len() * 100 > events.len() * 95, "{} of {}", usual.len(), events.len());
}

#[test]
fn an_attack_comes_from_one_network_against_thousands_of_users() {
    let (events, _) = made(20, 10_000);
    let attack: Vec<&SecurityEvent> =
        events.iter().filter(|event| event.ip_address.as_deref().is_some_and(|ip| ip.starts_with("203.0."))).collect();
    let networks: BTreeSet<&str> = attack
        .iter()
        .filter_map(|event| event.ip_address.as_deref()?.rsplit_once('.'))
        .map(|(network, _)| network)
        .collect();
    assert_eq!((attack.len(), networks.len()), (2000, 1));
    let users: BTreeSet<&str> = attack.iter().filter_map(|event| event.user_id.as_deref()).collect();
    assert_eq!(users.len(), 2000);
    let mut failures: HashMap<&str, usize> = HashMap::new();
    for event in attack.iter().filter(|event| event.event_type == "password_failure") {
        *failures.entry(event.ip_address.as_deref().unwrap()).or_default() += 1;
    }
    assert!((900..1100).contains(&failures.values().sum::<usize>()));
    assert!(failures.values().any(|&count| count > 100), "the guide's third question has an answer");
}

#[test]
fn hook_payloads_are_large_enough_to_be_toasted() {
    let (_, hooks) = made(5, 20_000);
    assert!(hooks.iter().all(|hook| (3000..=6300).contains(&hook.security_event_payload.len())));
    assert!(hooks.iter().any(|hook| hook.security_event_hook_execution_payload.is_none()));
}

#[test]
fn compact_rows_have_the_guides_size() {
    let mut generator = Generator::new(GeneratorOptions::compact(7));
    let rows: Vec<Row> = generator.history(1, 5000, noon()).collect();
    let bytes: usize = rows
        .iter()
        .map(|row| match row {
            Row::Event(event) => event.values().iter().flatten().map(|value| value.len()).sum::<usize>(),
            Row::Hook(_) => panic!("the bench moves one table"),
        })
        .sum();
    assert!((490..=550).contains(&(bytes / rows.len())), "{}", bytes / rows.len());
}

#[test]
fn live_rows_are_never_from_the_future() {
    let mut generator = Generator::new(GeneratorOptions::with_seed(7));
    let mut yesterdays = 0;
    for _ in 0..5000 {
        let (Row::Event(SecurityEvent { created_at, .. }) | Row::Hook(HookResult { created_at, .. })) =
            generator.live(noon());
        assert!(created_at.as_str() <= "2026-03-01 12:00:00.000000");
        yesterdays += usize::from(created_at.as_str() < "2026-03-01");
    }
    assert!((1..20).contains(&yesterdays), "{yesterdays}");
}
