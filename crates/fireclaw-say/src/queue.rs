//! Lines that wait to be written by a thread.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many bytes of lines wait. Enough for the burst of a start; a reader who is further
/// behind is none.
const ROOM: usize = 64 * 1024;

/// Lines in front of a writer that may stop.
pub struct Queue(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<String>,
    bytes: usize,
    lost: u64,
    writes: bool,
}

impl Queue {
    /// Starts the thread that writes, or says `None` if the system has no room for one.
    pub fn start(write: impl Fn(&str) + Send + 'static) -> Option<Self> {
        let shared = Arc::new(Shared { waiting: Mutex::default(), changed: Condvar::new() });
        let its = Arc::clone(&shared);
        std::thread::Builder::new().name("say".into()).spawn(move || its.write_with(write)).ok()?;
        Some(Self(shared))
    }

    /// Adds a line, or counts it as lost.
    pub fn add(&self, line: String) {
        let mut waiting = self.0.lock();
        if waiting.bytes + line.len() > ROOM {
            waiting.lost += 1;
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        self.0.changed.notify_all();
    }

    /// Waits until all is written, or `limit` is over.
    pub fn flush(&self, limit: Duration) {
        let busy = |waiting: &mut Waiting| waiting.writes || !waiting.lines.is_empty();
        let _ = self.0.changed.wait_timeout_while(self.0.lock(), limit, busy);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_with(&self, write: impl Fn(&str)) {
        let mut waiting = self.lock();
        loop {
            let Some(line) = waiting.lines.pop_front() else {
                waiting.writes = false;
                self.changed.notify_all();
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            waiting.bytes -= line.len();
            waiting.writes = true;
            let lost = std::mem::take(&mut waiting.lost);
            drop(waiting);
            write(&line);
            if lost > 0 {
                write(&format!("fireclaw: {lost} lines before were lost: nobody read them\n"));
            }
            waiting = self.lock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn lines_come_in_order_and_are_waited_for() {
        let (to, from) = mpsc::channel();
        let queue = Queue::start(move |line| to.send(line.to_owned()).unwrap()).unwrap();
        for n in 0..100 {
            queue.add(format!("{n}\n"));
        }
        queue.flush(Duration::from_secs(60));
        let lines: Vec<_> = from.try_iter().collect();
        assert_eq!(lines, (0..100).map(|n| format!("{n}\n")).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_who_does_not_read_holds_up_nobody_and_hears_what_was_lost() {
        let (release, held) = mpsc::channel::<()>();
        let (to, from) = mpsc::channel();
        let queue = Queue::start(move |line| {
            let _ = held.recv();
            to.send(line.to_owned()).unwrap();
        })
        .unwrap();
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..1000 {
            queue.add(line.clone());
        }
        queue.flush(Duration::from_millis(1));
        assert!(queue.0.lock().bytes <= ROOM);
        drop(release);
        queue.flush(Duration::from_secs(60));
        let lines: Vec<String> = from.try_iter().collect();
        let written = lines.iter().filter(|one| **one == line).count();
        let told: usize = lines
            .iter()
            .filter_map(|one| one.strip_prefix("fireclaw: ")?.split(' ').next()?.parse().ok())
            .filter(|lost: &usize| *lost > 0)
            .sum();
        assert_eq!(written + told, 1000);
        assert!(told >= 900, "only {told} were lost");
    }
}
