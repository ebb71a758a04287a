//! Finding texts by words.

/// How many words of a query count.
const MAX_WORDS: usize = 16;

/// How many texts are shown.
const MAX_FOUND: usize = 5;

/// A text that may be found.
#[derive(Debug)]
pub struct Candidate {
    /// Where it is from; its words count more.
    pub title: String,
    pub text: String,
}

/// The best of the candidates, best first: those with most of the query's words, then
/// those that have them most often; among equals, later ones.
pub fn rank(query: &str, candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut wanted = words(query);
    wanted.sort();
    wanted.dedup();
    // Short words are in every text, unless the query has no others.
    if wanted.iter().any(|w| w.chars().count() > 3) {
        wanted.retain(|w| w.chars().count() > 3 || !w.is_ascii());
    }
    wanted.truncate(MAX_WORDS);
    let mut scored: Vec<(usize, Candidate)> = candidates
        .into_iter()
        .rev()
        .filter_map(|candidate| {
            let score = score(&wanted, &candidate);
            (score > 0).then_some((score, candidate))
        })
        .collect();
    scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    scored.into_iter().take(MAX_FOUND).map(|(_, candidate)| candidate).collect()
}

fn score(wanted: &[String], candidate: &Candidate) -> usize {
    let (title, text) = (words(&candidate.title), words(&candidate.text));
    let count = |words: &[String], wanted: &str| words.iter().filter(|w| fits(w, wanted)).count();
    let of = |wanted: &String| match (count(&title, wanted), count(&text, wanted)) {
        (0, 0) => 0,
        (title, text) => 100 + 50 * title.min(1) + text.min(20),
    };
    wanted.iter().map(of).sum()
}

/// Whether a word is the one that is looked for, or begins with it. Scripts without spaces
/// have longer words than one looks for.
fn fits(word: &str, wanted: &str) -> bool {
    word.starts_with(wanted) || (!wanted.is_ascii() && word.contains(wanted))
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(query: &str, texts: &[&str]) -> Vec<String> {
        let candidate = |text: &&str| Candidate { title: String::new(), text: (*text).to_owned() };
        rank(query, texts.iter().map(candidate).collect()).into_iter().map(|c| c.text).collect()
    }

    #[test]
    fn the_best_come_first() {
        let texts =
            ["The cat sleeps", "A dog and a cat", "Cats: cat, cat", "nothing", "art starts"];
        assert_eq!(
            found("dog cat", &texts),
            ["A dog and a cat", "Cats: cat, cat", "The cat sleeps"]
        );
        assert_eq!(found("what is the dog's name", &["the name is", "the"]), ["the name is"]);
        assert_eq!(found("ART", &texts), ["art starts"]);
        assert_eq!(found("猫", &["我的猫很大"]), ["我的猫很大"]);
        assert!(found("", &texts).is_empty() && found("zebra", &texts).is_empty());
        assert_eq!(found("x", &["x 1", "x 2", "x 3", "x 4", "x 5", "x 6"])[..2], ["x 6", "x 5"]);
    }

    #[test]
    fn titles_count_more() {
        let candidates = ["b", "cat"].map(|t| Candidate { title: t.into(), text: "cat".into() });
        assert_eq!(rank("cat", candidates.into())[0].title, "cat");
    }

    #[test]
    fn work_per_byte_does_not_grow_with_the_text() {
        use fireclaw_testkit::cost::assert_linear;
        let candidate = |text: &str| Candidate { title: text.to_owned(), text: text.to_owned() };
        assert_linear("a text", &|text| drop(rank("some words", vec![candidate(text)])));
        assert_linear("a query", &|text| drop(rank(text, vec![candidate("some words")])));
        assert_linear("both", &|text| drop(rank(text, vec![candidate(text)])));
    }
}
