//! The picture in docs/architecture.md is that of the imports.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What no part of the program imports: they are for tests.
const LEFT_OUT: [&str; 2] = ["fireclaw-netlab", "fireclaw-testkit"];

type Graph = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Each crate with those of ours that it imports.
fn imports() -> Graph {
    let mut graph = Graph::new();
    for entry in fs::read_dir(root().join("crates")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap();
        let imported = manifest.split("\n[").find(|part| part.starts_with("dependencies]"));
        let names = imported.unwrap_or_default().lines().filter_map(|line| {
            let name = line.split(['.', ' ', '=']).next()?;
            name.starts_with("fireclaw").then(|| name.to_owned())
        });
        graph.insert(name, names.collect());
    }
    graph
}

/// The crates of the picture with the arrows that lead from each.
fn picture() -> Graph {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let drawn = text.split("```mermaid").nth(1).unwrap().split("```").next().unwrap();
    let mut names = BTreeMap::new();
    for line in drawn.lines() {
        if let Some((id, label)) = line.trim().split_once("[\"") {
            names.insert(id.to_owned(), label.split(':').next().unwrap().to_owned());
        }
    }
    let mut graph: Graph = names.values().map(|name| (name.clone(), BTreeSet::new())).collect();
    for line in drawn.lines() {
        if let Some((from, to)) = line.trim().split_once(" --> ")
            && let (Some(from), Some(to)) = (names.get(from), names.get(to))
        {
            graph.get_mut(from).unwrap().insert(to.clone());
        }
    }
    graph
}

/// Whether arrows lead from one to another.
fn leads(graph: &Graph, from: &str, to: &str) -> bool {
    graph[from].iter().any(|next| next == to || leads(graph, next, to))
}

#[test]
fn the_picture_shows_what_imports_what() {
    let (mut imports, picture) = (imports(), picture());
    for name in LEFT_OUT {
        imports.remove(name).unwrap();
    }
    let (there, drawn): (Vec<_>, Vec<_>) = (imports.keys().collect(), picture.keys().collect());
    assert_eq!(there, drawn, "the crates and the boxes");
    for (from, arrows) in &picture {
        for to in arrows {
            assert!(imports[from].contains(to), "{from} does not import {to}");
        }
    }
    for (from, names) in &imports {
        for to in names {
            assert!(leads(&picture, from, to), "no arrows lead from {from} to {to}");
        }
    }
}

/// A second chat network is one more crate: only what offers a choice of networks knows one.
#[test]
fn only_the_program_itself_knows_which_chat_network_it_is() {
    let by: Vec<_> = imports().into_iter().filter(|(_, to)| to.contains("fireclaw-irc")).collect();
    let by: Vec<_> = by.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(by, ["fireclaw"]);
}

/// The files under a directory.
fn files(under: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(under).unwrap().flatten().map(|entry| entry.path());
    let deep = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(deep).collect()
}

#[test]
fn a_module_with_parts_is_a_file_beside_their_folder() {
    for crates in fs::read_dir(root().join("crates")).unwrap().flatten() {
        let sources = files(&crates.path().join("src"));
        let other = sources.iter().find(|file| file.ends_with("mod.rs"));
        assert_eq!(other, None, "foo.rs and foo/, not foo/mod.rs");
    }
}

/// The modules of a crate by their paths, with the code of each that is no test.
fn modules(sources: &Path) -> BTreeMap<Vec<String>, String> {
    let mut modules = BTreeMap::new();
    for file in files(sources) {
        let inside = file.strip_prefix(sources).unwrap().with_extension("");
        let mut path: Vec<String> =
            inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        let is_test = path.iter().any(|part| part == "tests" || part.starts_with("against_"));
        if file.extension().is_none_or(|ending| ending != "rs") || is_test || path[0] == "bin" {
            continue;
        }
        if path == ["lib"] || path == ["main"] {
            path.clear();
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        modules.insert(path, code.to_owned());
    }
    modules
}

/// Every path that code names from the crate or from a module around it, as
/// `crate::a::b` is `[a, b]`; lists in braces are taken apart.
fn named(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.flat_map(|line| [line, " "]).collect();
    let mut paths = Vec::new();
    for (mark, around) in [("crate::", 0), ("super::", module.len().saturating_sub(1))] {
        for (at, _) in code.match_indices(mark) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let (mut rest, mut around) = (&code[at + mark.len()..], around);
            while let Some(higher) = rest.strip_prefix("super::") {
                (rest, around) = (higher, around.saturating_sub(1));
            }
            let mut found = Vec::new();
            take(rest, &module[..around.min(module.len())], &mut found);
            paths.extend(found);
        }
    }
    paths
}

/// Reads a path, or a list of paths in braces; what stands behind it.
fn take<'a>(text: &'a str, before: &[String], paths: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = take(rest, before, paths).trim_start();
            match rest.strip_prefix(',') {
                Some(more) if !more.trim_start().starts_with('}') => rest = more,
                more => return more.unwrap_or(rest).trim_start().strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let mut path = before.to_vec();
    if name != "self" && !name.is_empty() {
        path.push(name.to_owned());
    }
    match rest.strip_prefix("::") {
        Some(rest) => take(rest, &path, paths),
        None => {
            paths.push(path);
            rest
        }
    }
}

/// Which module a path leads into: what a module only hands on is looked for where it is.
fn leads_into(
    modules: &BTreeMap<Vec<String>, String>,
    path: &[String],
    depth: usize,
) -> Vec<String> {
    let known = (0..=path.len()).rev().map(|n| &path[..n]).find(|part| modules.contains_key(*part));
    let known = known.unwrap_or_default();
    let Some(name) = path.get(known.len()).filter(|_| depth < 8) else { return known.to_vec() };
    let handed_on = modules[known].split("pub").skip(1).filter_map(|rest| {
        let rest = rest.trim_start_matches("(crate)").trim_start_matches("(super)");
        rest.strip_prefix(" use ")?.split(';').next()
    });
    for list in handed_on {
        let (mut found, from) =
            (Vec::new(), if list.starts_with("crate::") { 0 } else { known.len() });
        take(list.trim_start_matches("crate::"), &known[..from], &mut found);
        if let Some(whole) = found.iter().find(|whole| whole.last() == Some(name)) {
            return leads_into(modules, whole, depth + 1);
        }
    }
    known.to_vec()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for crates in fs::read_dir(root().join("crates")).unwrap().flatten() {
        let modules = modules(&crates.path().join("src"));
        // A module and its parts are one room to those beside it; in each room they must be
        // in an order.
        let mut rooms: BTreeMap<Vec<String>, Graph> = BTreeMap::new();
        for (module, code) in modules.iter().filter(|(module, _)| !module.is_empty()) {
            for path in named(code, module) {
                let other = leads_into(&modules, &path, 0);
                let shared = module.iter().zip(&other).take_while(|(a, b)| a == b).count();
                if let (Some(from), Some(to)) = (module.get(shared), other.get(shared)) {
                    let room = rooms.entry(module[..shared].to_vec()).or_default();
                    room.entry(to.clone()).or_default();
                    room.entry(from.clone()).or_default().insert(to.clone());
                }
            }
        }
        for (room, mut graph) in rooms {
            // Without those that import nobody, until there is nobody or a circle.
            while let Some(free) =
                graph.iter().find(|(_, to)| to.is_empty()).map(|(n, _)| n.clone())
            {
                graph.remove(&free);
                for to in graph.values_mut() {
                    to.remove(&free);
                }
            }
            if !graph.is_empty() {
                circles.push(format!("{:?} {room:?}: {graph:?}", crates.file_name()));
            }
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn paths_are_read_as_they_are_written() {
    let module = ["a".to_owned(), "b".to_owned()];
    let read = |code| named(code, &module).iter().map(|p| p.join("::")).collect::<Vec<_>>();
    assert_eq!(read("use crate::{c, d::{self, E}, f::G};"), ["c", "d", "d::E", "f::G"]);
    assert_eq!(read("let x = super::c::run(1);"), ["a::c::run"]);
    assert_eq!(read("use super::super::d;"), ["d"]);
    assert_eq!(read("// crate::c\nmy_crate::d"), Vec::<String>::new());
}

/// Whoever prints an error with what caused it would print that twice.
#[test]
fn an_error_that_tells_its_cause_has_no_other() {
    let sources = fs::read_dir(root().join("crates")).unwrap().flatten();
    for file in sources.flat_map(|of| files(&of.path().join("src"))) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        for variant in text.split("#[error(").skip(1) {
            let (told, rest) = variant.split_once(")]").unwrap();
            // Up to the next one, or the end of the enum.
            let own = rest.split("\n}").next().unwrap();
            let other = ["source:", "#[from]", "#[source]"].iter().any(|mark| own.contains(mark));
            let tells = told.contains("{source}") || told.contains("{0}");
            assert!(!(other && tells), "{}: {told}", file.display());
        }
    }
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn spread(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        None => vec![path.to_owned()],
        Some((before, (parts, after))) => {
            parts.split(',').map(|part| format!("{before}{part}{after}")).collect()
        }
    }
}

#[test]
fn what_the_documentation_points_to_is_there() {
    let mut pages = files(&root().join("docs"));
    pages.push(root().join("README.md"));
    for page in pages.iter().filter(|page| page.extension().is_some_and(|ending| ending == "md")) {
        let text = fs::read_to_string(page).unwrap();
        let named = text.split('`').skip(1).step_by(2).filter(|word| word.starts_with("crates/"));
        for path in named.filter(|path| !path.contains(['<', ' '])).flat_map(spread) {
            assert!(root().join(&path).exists(), "{}: {path}", page.display());
        }
        // Links within the documentation.
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                assert!(page.parent().unwrap().join(file).exists(), "{}: {link}", page.display());
            }
        }
    }
}
