//! The house keeps its own rules: rooms see only the rooms that ARCHITECTURE.md lists, files stay readable, and every
//! promise has an owner and a test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// `src/wal/socket.rs` → `wal`; `src/pipeline.rs` → `pipeline`; `src/lib.rs` and `src/main.rs` belong to no room.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(room, "lib" | "main")).then(|| room.to_owned())
}

/// The rows `| `room/` | what | may use |` of the map in ARCHITECTURE.md.
fn permitted_edges() -> BTreeMap<String, BTreeSet<String>> {
    let map = text_of(&root().join("ARCHITECTURE.md"));
    let mut edges = BTreeMap::new();
    for line in map.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [room, _, uses] = cells[..] else { continue };
        let room = room.trim_matches('`').trim_end_matches('/').trim_end_matches(".rs");
        let uses = uses.split(',').map(str::trim).filter(|used| !used.is_empty() && *used != "–");
        edges.insert(room.to_owned(), uses.map(str::to_owned).collect());
    }
    edges
}

/// Every `crate::room` in the code, comments and documentation links left out.
fn used_rooms(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = code.flat_map(|line| line.split("crate::").skip(1).flat_map(first_names).collect::<Vec<_>>());
    names.collect()
}

/// The room named after `crate::`, or the rooms of a `crate::{a, b::c}` group.
fn first_names(after: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    match after.strip_prefix('{') {
        Some(group) => group.split('}').next().unwrap_or("").split(',').map(name).collect(),
        None => vec![name(after)],
    }
}

#[test]
fn rooms_see_only_the_rooms_that_the_map_lists() {
    let permitted = permitted_edges();
    let mut wrong = Vec::new();
    let mut rooms = BTreeSet::new();
    for path in rust_files("src") {
        let Some(room) = room_of(&path) else { continue };
        rooms.insert(room.clone());
        let allowed = permitted.get(&room).unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for {room}"));
        for used in used_rooms(&text_of(&path)) {
            if used != room && !allowed.contains(&used) {
                wrong.push(format!("{}: {room} → {used}", path.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that ARCHITECTURE.md does not list:\n{}", wrong.join("\n"));
    let mapped: BTreeSet<String> = permitted.into_keys().collect();
    assert_eq!(rooms, mapped, "the map and the folders differ");
}

#[test]
fn the_edge_test_finds_a_forbidden_edge() {
    assert_eq!(used_rooms("use crate::lake::LakeTable;\n// crate::wal\n"), ["lake".to_owned()].into());
    assert_eq!(used_rooms("use crate::{base::Lsn, wal};"), ["base".to_owned(), "wal".to_owned()].into());
}

#[test]
fn the_map_has_no_way_back() {
    let edges = permitted_edges();
    let mut done: BTreeSet<String> = BTreeSet::new();
    while done.len() < edges.len() {
        let ready: Vec<&String> = edges
            .iter()
            .filter(|(room, uses)| !done.contains(*room) && uses.is_subset(&done))
            .map(|(room, _)| room)
            .collect();
        assert!(!ready.is_empty(), "a cycle among the rooms that are left of {:?}", edges.keys());
        done.extend(ready.into_iter().cloned());
    }
}

#[test]
fn files_stay_readable() {
    let long: Vec<String> = ["src", "tests", "benches"]
        .iter()
        .flat_map(|folder| rust_files(folder))
        .map(|path| (text_of(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines:\n{}", long.join("\n"));
}

#[test]
fn every_room_says_why_it_exists() {
    for path in rust_files("src") {
        let text = text_of(&path);
        let test_file = path.file_stem().unwrap().to_str().unwrap().contains("test");
        assert!(test_file || text.starts_with("//!"), "{} opens without a page", path.display());
    }
}
