//! Where the time of a run goes: `fireclaw run -v`.

use std::time::{Duration, Instant};

use fireclaw_protocol::hello::GuestHello;
use fireclaw_sandbox::{Phase, Watch};
use fireclaw_say::say;

use crate::machine;

/// The phases of one run, in order.
#[derive(Debug)]
pub struct Phases {
    shown: bool,
    start: Instant,
    last: Instant,
    phases: Vec<(&'static str, Duration)>,
    clock_within: Option<Duration>,
}

impl Phases {
    /// Starts the clock.
    pub fn start(shown: bool) -> Self {
        let now = Instant::now();
        Self { shown, start: now, last: now, phases: Vec::new(), clock_within: None }
    }

    /// Ends a phase.
    pub fn mark(&mut self, phase: &'static str) {
        let now = Instant::now();
        self.phases.push((phase, now - self.last));
        self.last = now;
    }

    /// Prints the table on standard error.
    pub fn report(&self) {
        if !self.shown {
            return;
        }
        for (name, time) in &self.phases {
            say!("fireclaw: {name:<14}{:>9.1} ms", milliseconds(*time));
        }
        let own: Duration =
            self.phases.iter().filter(|(name, _)| is_own(name)).map(|(_, time)| *time).sum();
        say!("fireclaw: {:<14}{:>9.1} ms", "total", milliseconds(self.start.elapsed()));
        say!("fireclaw: {:<14}{:>9.1} ms", "overhead", milliseconds(own));
        if let Some(within) = self.clock_within {
            say!("fireclaw: {:<14}{:>9.1} ms", "clock within", milliseconds(within));
        }
    }
}

impl Watch for Phases {
    fn ends(&mut self, phase: Phase) {
        self.mark(phase.as_str());
    }

    /// Ends the boot, divided by what the guest says of it. A guest can lie
    /// about its share, not about the whole.
    fn booted(&mut self, hello: &GuestHello) {
        let now = Instant::now();
        let boot = now - self.last;
        let init = Duration::from_micros(hello.init_us).min(boot);
        let kernel = Duration::from_micros(hello.kernel_us).min(boot - init);
        let firmware = boot - init - kernel;
        self.phases.extend([("firmware", firmware), ("kernel", kernel), ("init", init)]);
        self.last = now;
    }

    fn set_clock(&mut self, within: Duration) {
        self.clock_within = Some(within);
    }

    /// It matters only to who asked for the phases.
    fn note(&mut self, text: String) {
        if self.shown {
            say!("fireclaw: {text}");
        }
    }

    fn makes_snapshot(&mut self) {
        machine::say_making();
    }
}

/// What is neither the VMM's time nor the guest's.
fn is_own(phase: &str) -> bool {
    matches!(phase, "prepare" | "clean-up")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
