//! Agents and models.

use crate::harness::alone;
use crate::overseer::Overseer;

/// The whole of it: a real model, its tools, and a figure that only the VM
/// can know.
#[test]
fn a_real_model_uses_its_machine() {
    let _alone = alone();
    let overseer = Overseer::start(&["--local-model", "--model-server", "http://127.0.0.1:9"]);
    let mut ann = overseer.person("ann");
    // It answers for the models of all templates; the server names one of them.
    let models = ann.command("!models", ":");
    ann.command("!invoke worker", "is starting");
    overseer.ready("worker");
    let figure = (std::process::id() * 7919 % 1_000_000).to_string();
    let write = format!("echo {figure} > /workspace/figure.txt");
    overseer.fireclaw(&["agent", "exec", "worker", "--", "sh", "-c", &write]).exits(0);
    // A model this small does not always say what it found.
    let mut said = Vec::new();
    let found = (0..6).any(|_| {
        ann.say("#agents", "worker: run the command: cat /workspace/figure.txt");
        said.push(ann.hears("worker", "#agents", ""));
        said.last().unwrap().contains(&figure)
    });
    assert!(found, "{figure} is not in {said:?}");
    // The log has it all, with the date; of what is said in private only that it was.
    ann.say("worker", "remember that my door code is 4711");
    ann.hears("worker", "me", "");
    let log = overseer.fireclaw(&["agent", "logs", "worker"]).exits(0).stdout();
    let asked = log.lines().find(|line| line.contains("from ann in #agents: run the command"));
    let date = asked.and_then(|line| line.get(..11)).unwrap_or_default();
    assert!(date.starts_with("20") && date.matches('-').count() == 2, "{log}");
    for part in [" calls ", " gave: ", "is answered: ", "from ann in private: ("] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(log.contains(&figure) && !log.contains("4711"), "{log}");
    // Another one, without losing anything: only one that there is.
    ann.command(
        "!model worker no-such",
        "model no-such is not there; !models lists the available models",
    );
    let other = models.split(", ").find(|model| *model != "qwen2.5:7b").unwrap();
    ann.command(&format!("!model worker {other}"), &format!("worker: model changed to {other}"));
    ann.hears("worker", "#agents", &format!("[reloaded: model={other}]"));
    assert_eq!(overseer.agents()[0]["model"], *other);
    overseer.end();
}

#[test]
fn who_asks_is_told_that_there_is_no_model() {
    let _alone = alone();
    // A port that nobody listens on.
    let overseer = Overseer::start(&["--model-server", "http://127.0.0.1:9"]);
    overseer.puppet("thinker", "model = \"qwen2.5:7b\"\n");
    let mut ann = overseer.person("ann");
    ann.command("!models", "the model server does not answer");
    ann.command("!status", "does not answer");
    ann.command("!invoke thinker", "is starting");
    overseer.ready("thinker");
    ann.command("!model thinker other", "does not answer");
    for _ in 0..2 {
        ann.say("#agents", "thinker: think hello");
        ann.hears("thinker", "#agents", "the model server does not answer");
        overseer.ready("thinker");
    }
    // In the log it is as well, for who was not there.
    let log = overseer.fireclaw(&["agent", "logs", "thinker"]).exits(0).stdout();
    assert!(log.contains("no answer from the model: the model server"), "{log}");
    overseer.end();
}
