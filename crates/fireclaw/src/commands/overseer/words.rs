//! The overseer's options as the words of a command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Options;

impl Options {
    /// What [`Options`] are read from again, in any directory and whatever the environment
    /// says; what is as it is by default is left out.
    pub fn words(&self) -> Vec<OsString> {
        // Every field by name, so that none is forgotten.
        let Self {
            server,
            port,
            tls,
            tls_ca,
            account,
            nick,
            channel,
            agents_channel,
            owner,
            model_server,
            model_ca,
            local_model,
            vmm,
            log_format,
            approval_time,
        } = self;
        let vmm = vmm.to_possible_value();
        let log_format = log_format.and_then(|format| format.to_possible_value());
        let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or(path.clone());
        let (tls_ca, model_ca) = (tls_ca.as_ref().map(whole), model_ca.as_ref().map(whole));
        let (port, approval_time) = (port.to_string(), approval_time.to_string());
        let valued: [(&str, Option<&OsStr>); 12] = [
            ("server", server.as_deref().map(OsStr::new)),
            ("port", Some(port.as_ref())),
            ("tls-ca", tls_ca.as_ref().map(|path| path.as_os_str())),
            ("account", account.as_deref().map(OsStr::new)),
            ("nick", Some(nick.as_ref())),
            ("channel", Some(channel.as_ref())),
            ("agents-channel", Some(agents_channel.as_ref())),
            ("model-server", Some(model_server.as_ref())),
            ("model-ca", model_ca.as_ref().map(|path| path.as_os_str())),
            ("vmm", vmm.as_ref().map(|vmm| OsStr::new(vmm.get_name()))),
            ("log-format", log_format.as_ref().map(|format| OsStr::new(format.get_name()))),
            ("approval-time", Some(approval_time.as_ref())),
        ];
        let mut words = Vec::new();
        let options = Self::augment_args(clap::Command::new("overseer"));
        for (name, value) in valued {
            let option = options.get_arguments().find(|option| option.get_long() == Some(name));
            let defaults = option.map(clap::Arg::get_default_values).unwrap_or_default();
            if let Some(value) = value
                && !defaults.iter().any(|default| default.as_os_str() == value)
            {
                words.push(word(name, value));
            }
        }
        words.extend(owner.iter().map(|who| word("owner", who.as_ref())));
        for (name, is_set) in [("--tls", tls), ("--local-model", local_model)] {
            words.extend(is_set.then(|| name.into()));
        }
        words
    }
}

/// One word, so that a value may begin with a dash.
fn word(name: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(format!("--{name}="));
    word.push(value);
    word
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn parse(words: &[OsString]) -> Options {
        let command = Options::augment_args(clap::Command::new("overseer").no_binary_name(true));
        Options::from_arg_matches(&command.get_matches_from(words)).unwrap()
    }

    #[test]
    fn options_are_read_again_from_their_words() {
        assert_eq!(parse(&[]).words(), Vec::<OsString>::new());
        let line = "--server=irc.example.org --port=6697 --tls-ca=/ca.pem --account=bot \
                    --nick=-boss --channel=#c --agents-channel=#a --model-server=http://m \
                    --vmm=qemu --log-format=json --approval-time=5 --owner=ann --owner=*!*@x --tls --local-model";
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        assert_eq!(parse(&words).words(), words);
    }

    #[test]
    fn a_file_is_named_from_the_root() {
        let words = ["--server=x", "--tls", "--tls-ca=ca.pem"].map(OsString::from);
        let absolute = std::path::absolute("ca.pem").unwrap();
        assert!(parse(&words).words().contains(&word("tls-ca", absolute.as_os_str())));
    }
}
