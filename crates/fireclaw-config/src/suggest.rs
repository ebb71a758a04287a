//! Which of the known words somebody meant.

/// The known word that is nearest to `word`, if any is near: one letter of three may
/// differ, and two that changed places count as one.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Words of a file can be long, and the measure takes the product of both lengths.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    let distance = |other: &str| strsim::damerau_levenshtein(&word, &other.to_lowercase());
    known
        .into_iter()
        .map(|other| (distance(other), other))
        .filter(|(far, other)| *far <= (other.chars().count() / 3).max(1))
        .min_by_key(|(far, _)| *far)
        .map(|(_, other)| other)
}

/// The hint for a word that is not known: the nearest one, else all of them.
pub fn hint(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it can be {}", one_of(known)),
    }
}

/// Words as a choice: `a`, `b` or `c`.
pub fn one_of(words: &[&str]) -> String {
    joined(words, "or")
}

/// Words as a list: `a`, `b` and `c`.
pub fn all(words: &[&str]) -> String {
    joined(words, "and")
}

fn joined(words: &[&str], with: &str) -> String {
    let ticked: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match ticked.split_last() {
        None => "nothing".into(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} {with} {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        let known = ["model", "memory", "nick", "max_rounds"];
        assert_eq!(nearest("modle", known), Some("model"));
        assert_eq!(nearest("Memory", known), Some("memory"));
        assert_eq!(nearest("max_round", known), Some("max_rounds"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"m".repeat(1000), known), None);
    }

    #[test]
    fn choices_as_words() {
        assert_eq!(one_of(&["a"]), "`a`");
        assert_eq!(one_of(&["a", "b", "c"]), "`a`, `b` or `c`");
        assert_eq!(hint("alwasy", &["mention", "always"]), "did you mean `always`?");
    }
}
