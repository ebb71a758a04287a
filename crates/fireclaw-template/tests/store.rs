//! Templates by name.

use std::fs;
use std::os::unix::fs::symlink;

use fireclaw_template::{Error, Origin, Store, check_file};

#[test]
fn users_templates_override_those_that_ship() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("worker.toml");
    fs::write(&file, "model = \"mine\"").unwrap();
    fs::write(home.path().join("old.json"), r#"{"model": "older"}"#).unwrap();
    for ignored in [".hidden.toml", "notes.txt", "worker.toml~", "README"] {
        fs::write(home.path().join(ignored), "x").unwrap();
    }
    let store = Store::open([home.path().to_owned(), home.path().join("missing")]);
    let listed: Vec<(String, bool, bool)> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.origin == Origin::Shipped, entry.overrides))
        .collect();
    let names = ["coder", "creative", "old", "quick", "researcher", "worker"];
    let expected =
        names.map(|name| (name.to_owned(), !matches!(name, "old" | "worker"), name == "worker"));
    assert_eq!(listed, expected);
    assert_eq!(store.get("worker").unwrap().model.as_deref(), Some("mine"));
    assert_eq!(store.get("old").unwrap().model.as_deref(), Some("older"));
    assert_eq!(store.get("coder").unwrap().model.as_deref(), Some("qwen2.5-coder:7b"));
    assert_eq!(
        store.text("worker").unwrap(),
        ("model = \"mine\"".into(), Origin::File(file.clone()))
    );
    // Each time anew.
    fs::write(&file, "model = \"changed\"").unwrap();
    assert_eq!(store.get("worker").unwrap().model.as_deref(), Some("changed"));
}

#[test]
fn the_first_directory_counts() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(first.path().join("a.toml"), "model = \"first\"").unwrap();
    fs::write(second.path().join("a.json"), r#"{"model": "second"}"#).unwrap();
    let store = Store::open([first.path().to_owned(), second.path().to_owned()]);
    assert_eq!(store.get("a").unwrap().model.as_deref(), Some("first"));
}

#[test]
fn unknown_names_come_with_the_one_that_was_meant() {
    let store = Store::open([]);
    let error = store.get("wroker").unwrap_err();
    assert_eq!(error.to_string(), "there is no template `wroker`");
    let Error::Unknown { near, known, .. } = error else { panic!("{error}") };
    assert_eq!(near.as_deref(), Some("worker"));
    assert_eq!(known, ["coder", "creative", "quick", "researcher", "worker"]);
    for name in ["", "../worker", "worker.toml", "/etc/passwd", "a\x1b[31m"] {
        assert!(matches!(store.get(name), Err(Error::Unknown { .. })), "{name}");
    }
}

#[test]
fn one_name_in_both_formats_is_refused() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("a.toml"), "model = \"a\"").unwrap();
    fs::write(home.path().join("a.json"), "{}").unwrap();
    let error = Store::open([home.path().to_owned()]).list().unwrap_err();
    assert!(matches!(error, Error::Twice { name, .. } if name == "a"));
}

#[test]
fn files_that_cannot_be_read() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("dir.toml")).unwrap();
    symlink("/dev/zero", home.path().join("zero.toml")).unwrap();
    symlink("/nowhere", home.path().join("gone.toml")).unwrap();
    fs::write(home.path().join("large.toml"), "#".repeat(300 * 1024)).unwrap();
    fs::write(home.path().join("wrong.toml"), "modle = 1").unwrap();
    let store = Store::open([home.path().to_owned()]);
    for name in ["dir", "zero", "gone"] {
        assert!(matches!(store.get(name), Err(Error::Read { .. })), "{name}");
    }
    for name in ["large", "wrong"] {
        assert!(matches!(store.get(name), Err(Error::Mistakes { .. })), "{name}");
    }
    let error = store.get("wrong").unwrap_err().to_string();
    let file = home.path().join("wrong.toml");
    assert!(error.starts_with("the template `wrong` has a mistake:"), "{error}");
    assert!(error.contains(&format!("{}:1:1: ", file.display())), "{error}");
    assert!(check_file(&home.path().join("x.yaml")).is_err());
}
