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
