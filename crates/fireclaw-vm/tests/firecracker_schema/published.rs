//! The table against Firecracker's own file, where that is at hand.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, Yaml};

use crate::table::{DEFINITIONS, Kind, REQUESTS, VERSION};

/// Run it with `FIRECLAW_FIRECRACKER_SWAGGER=…/firecracker.yaml` and `--ignored`.
#[test]
#[ignore = "needs Firecracker's own description"]
fn the_table_says_what_firecracker_publishes() {
    let path = std::env::var_os("FIRECLAW_FIRECRACKER_SWAGGER")
        .expect("FIRECLAW_FIRECRACKER_SWAGGER names the file");
    let text = std::fs::read_to_string(path).unwrap();
    let documents = Yaml::load_from_str(&text).unwrap();
    let root = &documents[0];
    assert_eq!(root["info"]["version"].as_str(), Some(VERSION));
    for (method, path, body) in REQUESTS {
        let parameters = root["paths"][*path][*method]["parameters"].as_sequence().unwrap();
        let sent = parameters.iter().find(|p| p["in"].as_str() == Some("body")).unwrap();
        assert_eq!(reference(&sent["schema"]), Some(*body), "{method} {path}");
    }
    for (name, fields) in DEFINITIONS {
        let ours: BTreeMap<&str, String> =
            fields.iter().map(|(field, kind, required)| (*field, show(*kind, *required))).collect();
        assert_eq!(ours, published(&root["definitions"][*name]), "{name}");
    }
}

fn show(kind: Kind, required: bool) -> String {
    let kind = match kind {
        Kind::Choice(words) => {
            let mut words = words.to_vec();
            words.sort_unstable();
            format!("one of {words:?}")
        }
        other => format!("{other:?}"),
    };
    format!("{kind}{}", if required { ", required" } else { "" })
}

/// A published definition in the form of [`show`].
fn published<'a>(definition: &'a Yaml<'_>) -> BTreeMap<&'a str, String> {
    let required: Vec<&str> = definition
        .as_mapping_get("required")
        .and_then(Yaml::as_sequence)
        .map(|names| names.iter().filter_map(Yaml::as_str).collect())
        .unwrap_or_default();
    definition["properties"]
        .as_mapping()
        .unwrap()
        .iter()
        .map(|(name, property)| {
            let name = name.as_str().unwrap();
            (name, show_property(property, required.contains(&name)))
        })
        .collect()
}

fn show_property(property: &Yaml<'_>, required: bool) -> String {
    let bound = |name| property.as_mapping_get(name).and_then(Yaml::as_integer);
    let kind = if let Some(name) = reference(property) {
        format!("Object({name:?})")
    } else if let Some(words) = property.as_mapping_get("enum").and_then(Yaml::as_sequence) {
        let mut words: Vec<&str> = words.iter().filter_map(Yaml::as_str).collect();
        words.sort_unstable();
        format!("one of {words:?}")
    } else {
        match property["type"].as_str() {
            Some("string") => format!("{:?}", Kind::Text),
            Some("boolean") => format!("{:?}", Kind::Flag),
            Some("integer") => format!("{:?}", Kind::Integer(bound("minimum"), bound("maximum"))),
            Some("array") => format!("List({:?})", reference(&property["items"]).unwrap()),
            other => panic!("a property of type {other:?}"),
        }
    };
    format!("{kind}{}", if required { ", required" } else { "" })
}

/// The name of the definition that is referred to.
fn reference<'a>(node: &'a Yaml<'_>) -> Option<&'a str> {
    node.as_mapping_get("$ref")?.as_str()?.strip_prefix("#/definitions/")
}
