//! Names for recipes.

use std::fs;
use std::io;
use std::path::PathBuf;

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
        json.and_then(|json| fs::write(&fresh, json)).map_err(Error::file("write", &fresh))?;
        sync(&fresh)?;
        fs::rename(&fresh, &path).map_err(Error::file("create", &path))?;
        sync(&self.root.join("names"))
    }

    /// Whether a recipe may take this name: before the work of making it.
    pub fn can_name(&self, name: &str, recipe: &Recipe) -> Result<()> {
        check(name)?;
        match self.recipe(name) {
            Some(other) if other != *recipe => Err(Error::BadName {
                name: name.to_owned(),
                problem: "it stands for another machine; remove that one first".into(),
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
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(e)),
            _ => Ok(()),
        }
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.root.join("names").join(format!("{name}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path_and_stands_for_one_recipe() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().join("snapshots"));
        let recipe = Recipe {
            image: "base".into(),
            kernel: None,
            cpus: 1,
            memory_mib: 256,
            card: false,
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
        assert!(list.len() == 1 && list[0].monitor.is_none());
        store.remove(&list[0]).unwrap();
        assert!(store.names().is_empty());
    }
}
