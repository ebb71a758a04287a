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
