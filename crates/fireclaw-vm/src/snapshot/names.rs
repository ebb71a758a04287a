//! Names for recipes.

use std::fs;
use std::io;
use std::path::PathBuf;

use fireclaw_host::PathError;

use super::key::AUTOMATIC;
use super::{Recipe, Store, private_dir, sync};
use crate::{Error, Result};

/// The longest name of a snapshot, in bytes.
const MAX_NAME: usize = 64;

/// Refuses what cannot be a snapshot's name: it is part of a path.
pub(super) fn check(name: &str) -> Result<()> {
    let bad =
        |problem: &str| Err(Error::BadName { name: name.to_owned(), problem: problem.into() });
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME {
        return bad("it must have 1 to 64 characters");
    }
    if !name.chars().all(allowed) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return bad("only letters, digits, '-', '_' and '.', the first a letter or digit");
    }
    if name.starts_with(AUTOMATIC) {
        return bad("names that begin with \"auto-\" are for those without a name");
    }
    Ok(())
}

impl Store {
    /// Gives a recipe a name.
    ///
    /// # Errors
    /// [`Error::BadName`] if it cannot be one, or stands for another recipe.
    pub fn name(&self, name: &str, recipe: &Recipe) -> Result<()> {
        self.can_name(name, recipe)?;
        let path = self.path_of(name);
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        private_dir(&self.root.join("names"), true)?;
        let json = serde_json::to_vec_pretty(recipe).map_err(io::Error::other);
        json.and_then(|json| fs::write(&fresh, json)).map_err(PathError::at("write", &fresh))?;
        sync(&fresh)?;
        fs::rename(&fresh, &path).map_err(PathError::at("create", &path))?;
        sync(&self.root.join("names"))
    }

    /// Whether a recipe may take this name: before the work of making it.
    pub fn can_name(&self, name: &str, recipe: &Recipe) -> Result<()> {
        check(name)?;
        match self.recipe(name) {
            Some(other) if other != *recipe => Err(Error::BadName {
                name: name.to_owned(),
                problem: format!(
                    "it stands for another VM, with {}; remove that one first",
                    other.differences(recipe).join(", ")
                ),
            }),
            _ => Ok(()),
        }
    }

    /// What a name stands for.
    pub fn recipe(&self, name: &str) -> Option<Recipe> {
        check(name).ok()?;
        serde_json::from_slice(&fs::read(self.path_of(name)).ok()?).ok()
    }

    /// All names in order.
    pub fn names(&self) -> Vec<(String, Recipe)> {
        let mut names: Vec<_> = fs::read_dir(self.root.join("names"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let file = entry.file_name().into_string().ok()?;
                let name = file.strip_suffix(".json")?;
                Some((name.to_owned(), self.recipe(name)?))
            })
            .collect();
        names.sort_by(|(a, _), (b, _)| a.cmp(b));
        names
    }

    pub(super) fn forget(&self, name: &str) -> Result<()> {
        if check(name).is_err() {
            return Ok(());
        }
        let path = self.path_of(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(PathError::at("remove", path)(e).into())
            }
            _ => Ok(()),
        }
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.root.join("names").join(format!("{name}.json"))
    }
}

impl Recipe {
    /// What differs from another recipe, in words.
    fn differences(&self, from: &Self) -> Vec<String> {
        let Self { image, kernel, cpus, memory_mib, interface, warm } = self;
        let shown = |kernel: &Option<PathBuf>| {
            kernel.as_ref().map_or("the usual".to_owned(), |it| it.display().to_string())
        };
        let line = |warm: &Option<String>| {
            let line = warm.as_ref().map(|line| format!("{line:?}"));
            line.unwrap_or_else(|| "nothing".to_owned())
        };
        let pairs = [
            ("image", image.clone(), from.image.clone()),
            ("kernel", shown(kernel), shown(&from.kernel)),
            ("cpus", cpus.to_string(), from.cpus.to_string()),
            ("memory", format!("{memory_mib} MiB"), format!("{} MiB", from.memory_mib)),
            ("a network interface", interface.to_string(), from.interface.to_string()),
            ("warmed with", line(warm), line(&from.warm)),
        ];
        let differ = pairs.into_iter().filter(|(_, this, other)| this != other);
        differ.map(|(what, this, other)| format!("{what} {this} instead of {other}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_stands_for_instead_is_said() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().join("snapshots"));
        let first = Recipe {
            image: "base".into(),
            kernel: None,
            cpus: 1,
            memory_mib: 256,
            interface: false,
            warm: Some("python3 -c 'import json'".into()),
        };
        store.name("py", &first).unwrap();
        let asked = Recipe { memory_mib: 512, warm: None, kernel: Some("/k".into()), ..first };
        let said = store.can_name("py", &asked).unwrap_err().to_string();
        for words in [
            "memory 256 MiB instead of 512 MiB",
            "kernel the usual instead of /k",
            "warmed with \"python3 -c 'import json'\" instead of nothing",
        ] {
            assert!(said.contains(words), "no {words:?} in: {said}");
        }
        assert!(!said.contains("cpus") && !said.contains("image "), "{said}");
    }

    #[test]
    fn a_name_is_no_path_and_stands_for_one_recipe() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().join("snapshots"));
        let recipe = Recipe {
            image: "base".into(),
            kernel: None,
            cpus: 1,
            memory_mib: 256,
            interface: false,
            warm: None,
        };
        for wrong in ["", "a/b", "../a", ".hidden", "-f", "auto-1", "a b", &"x".repeat(300)] {
            assert!(matches!(store.name(wrong, &recipe), Err(Error::BadName { .. })), "{wrong}");
            assert!(store.recipe(wrong).is_none());
        }
        store.name("py-3.11", &recipe).unwrap();
        store.name("py-3.11", &recipe).unwrap();
        let other = Recipe { cpus: 2, ..recipe.clone() };
        assert!(matches!(store.name("py-3.11", &other), Err(Error::BadName { .. })));
        assert_eq!(store.names(), [("py-3.11".to_owned(), recipe)]);
        // A name without a snapshot is listed: it can be made again.
        let list = store.list();
        assert!(list.len() == 1 && list[0].vmm.is_none());
        store.remove(&list[0]).unwrap();
        assert!(store.names().is_empty());
    }
}
