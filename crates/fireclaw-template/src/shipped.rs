//! The five templates that come with the program.

/// Their names and texts, which are TOML.
pub const TEMPLATES: [(&str, &str); 5] = [
    ("coder", include_str!("../templates/coder.toml")),
    ("creative", include_str!("../templates/creative.toml")),
    ("quick", include_str!("../templates/quick.toml")),
    ("researcher", include_str!("../templates/researcher.toml")),
    ("worker", include_str!("../templates/worker.toml")),
];

/// The text of one of them.
pub fn text(name: &str) -> Option<&'static str> {
    TEMPLATES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, Network, Source, Template, Trigger, parse};

    fn template(name: &str) -> Template {
        let source = Source {
            name,
            file: name,
            text: text(name).unwrap().as_bytes(),
            format: Format::Toml,
            directory: None,
        };
        let parsed = parse(&source);
        assert_eq!(parsed.warnings, [], "{name}");
        parsed.template.unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
    }

    #[test]
    fn they_are_what_was_promised() {
        for (name, nick, model, tools) in [
            ("worker", "worker", "qwen2.5:7b", true),
            ("coder", "coder", "qwen2.5-coder:7b", true),
            ("researcher", "research", "llama3.1:8b", true),
            ("quick", "quick", "phi4-mini", false),
            ("creative", "muse", "gemma3:4b", false),
        ] {
            let template = template(name);
            assert_eq!((&*template.nick, template.model.as_deref()), (nick, Some(model)));
            assert_eq!(template.tools, tools, "{name}");
            assert_eq!(template.trigger, Trigger::Mention);
            assert_eq!(template.network, Network::None);
            assert!((100..1500).contains(&template.persona.len()), "{name}");
            assert!(!template.description.is_empty());
            // Who has tools is asked about the nine, and nobody else is asked about anything.
            assert_eq!(template.effective_rules().len(), if tools { 9 } else { 0 });
        }
        assert_eq!(text("other"), None);
    }
}
