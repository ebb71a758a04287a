//! How a long operation tells what it does.

/// Hears how a long operation goes.
pub trait Progress: Sync {
    /// A step begins: number, count, and what it does.
    fn step(&self, number: usize, of: usize, what: &str);
    /// What the current step is at.
    fn detail(&self, what: &str);
    /// The current step ended well, or had been done before.
    fn done(&self, result: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: usize, _: usize, _: &str) {}
    fn detail(&self, _: &str) {}
    fn done(&self, _: &str) {}
}
