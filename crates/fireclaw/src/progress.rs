//! How set-up shows what it does: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fireclaw_image::Progress;
use fireclaw_say::say;
use indicatif::{ProgressBar, ProgressStyle};

/// Shows progress on standard error.
pub struct Screen {
    bar: Option<ProgressBar>,
    current: Mutex<(String, Instant)>,
}

impl Screen {
    /// A screen fit for what standard error is.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template(
                "{spinner} [{pos}/{len}] {prefix}: {wide_msg} {elapsed:>4}",
            );
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, current: Mutex::new((String::new(), Instant::now())) }
    }
}

impl Progress for Screen {
    fn step(&self, number: usize, of: usize, what: &str) {
        let title = format!("[{number}/{of}] {what}");
        match &self.bar {
            Some(bar) => {
                bar.set_length(of as u64);
                bar.set_position(number as u64);
                bar.set_prefix(what.to_owned());
                bar.set_message("");
            }
            None => say!("{title}"),
        }
        if let Ok(mut current) = self.current.lock() {
            *current = (title, Instant::now());
        }
    }

    fn detail(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => say!("      {what}"),
        }
    }

    fn done(&self, result: &str) {
        let Ok(current) = self.current.lock() else { return };
        let (title, start) = &*current;
        let line = format!("{title}: {result} ({:.1} s)", start.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => say!("{line}"),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
