//! What the messages that are being dealt with have in common.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use fireclaw_protocol::agent::Config;

use crate::history::History;
use crate::host::Host;
use crate::memory::Memory;
use crate::rules::Rules;
use crate::skills::Skills;
use crate::{Paths, built_in, cut};

/// How many different notes are made: what changes with every look must not flood people.
const MAX_NOTES: usize = 200;

/// The longest note, in bytes.
const MAX_NOTE: usize = 500;

/// A configuration as it is used.
#[derive(Debug)]
pub struct Current {
    pub config: Config,
    pub rules: Rules,
}

/// The agent, but for the messages themselves.
pub struct AgentContext {
    pub host: Host,
    pub paths: Paths,
    pub history: RefCell<History>,
    pub memory: Memory,
    pub skills: RefCell<Skills>,
    pub notes: RefCell<Notes>,
    /// Whether the people know that nothing can be remembered.
    pub told_forgetful: Cell<bool>,
    current: RefCell<Option<Rc<Current>>>,
}

impl AgentContext {
    pub fn new(host: Host, paths: Paths) -> Self {
        Self {
            host,
            history: RefCell::new(History::new(paths.workspace.join(".fireclaw/history"))),
            memory: Memory::new(&paths.workspace),
            skills: RefCell::new(Skills::new(paths.skills.clone())),
            notes: RefCell::default(),
            told_forgetful: Cell::new(false),
            current: RefCell::new(None),
            paths,
        }
    }

    /// Takes a configuration on. Says whether it is the first one.
    pub fn configure(&self, config: Config) -> bool {
        let (rules, notes) = Rules::new(&config.rules);
        notes.into_iter().for_each(|note| self.note(note));
        self.current.replace(Some(Rc::new(Current { config, rules }))).is_none()
    }

    /// The configuration as it is now; none before the first.
    pub fn current(&self) -> Option<Rc<Current>> {
        self.current.borrow().clone()
    }

    /// Looks at all that is remembered, and notes what is wrong with it.
    pub fn check(&self) {
        let notes = [self.history.borrow().check(), self.memory.check()].concat();
        notes.into_iter().for_each(|note| self.note(note));
        self.look_for_skills();
    }

    /// Finds skills that are new or have changed.
    pub fn look_for_skills(&self) {
        let notes = self.skills.borrow_mut().look(built_in::has);
        notes.into_iter().for_each(|note| self.note(note));
    }

    /// Notes something that people should know.
    pub fn note(&self, note: String) {
        crate::log!("{note}");
        self.notes.borrow_mut().add(cut::line(&note, MAX_NOTE));
    }
}

/// Notes to people, each of which they get once.
#[derive(Debug, Default)]
pub struct Notes {
    known: HashSet<String>,
    new: Vec<String>,
}

impl Notes {
    fn add(&mut self, note: String) {
        if self.known.len() < MAX_NOTES && self.known.insert(note.clone()) {
            self.new.push(note);
        }
    }

    /// Those that nobody got yet.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new)
    }
}
