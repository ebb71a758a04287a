//! The thread that starts processes.
//!
//! To start one takes as long as the system copies our page tables and reads the program:
//! tens of milliseconds on a busy host, in which a runtime of one thread would stand still.
//! And what is tied to us by [`crate::die_with_owner`] ends with the thread that started it,
//! so it cannot be any thread: this one lives as long as the process.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Where jobs are handed in; nothing if this host gives us no thread.
static STARTER: OnceLock<Option<Sender<Job>>> = OnceLock::new();

/// Runs `start`, which starts a process, on the thread for that, inside this runtime. If who
/// waits for it is dropped, so is what it returned.
///
/// # Errors
/// Those of `start`.
pub async fn on_starter<T: Send + 'static>(
    start: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let Some(starter) = starter() else { return start() };
    let (tell, told) = oneshot::channel();
    let runtime = Handle::current();
    let job = Box::new(move || {
        let _inside = runtime.enter();
        let _ = tell.send(start());
    });
    starter.send(job).map_err(|_| gone())?;
    told.await.map_err(|_| gone())?
}

/// Waits, for a bounded time, until what was being started is there, or ended because nobody
/// waits for it any more. Before that a process must not exit, or it leaves it behind.
pub fn finish_starts() {
    const LIMIT: Duration = Duration::from_secs(5);
    if let Some(starter) = STARTER.get().and_then(Option::as_ref) {
        let (tell, told) = channel();
        let job = Box::new(move || {
            let _ = tell.send(());
        });
        if starter.send(job).is_ok() {
            let _ = told.recv_timeout(LIMIT);
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts processes is gone")
}

fn starter() -> Option<&'static Sender<Job>> {
    let make = || {
        let (jobs, todo) = channel::<Job>();
        // It must outlive any job: what it started ends with it.
        let work = move || {
            for job in todo {
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        };
        thread::Builder::new().name("starter".into()).spawn(work).ok()?;
        Some(jobs)
    };
    STARTER.get_or_init(make).as_ref()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    use super::*;
    use crate::Child;

    #[tokio::test]
    async fn a_start_holds_nobody_up() {
        // It goes on only once another task of this thread has run.
        let (tell, told) = mpsc::channel::<()>();
        let start = on_starter(move || Ok(told.recv_timeout(Duration::from_secs(60)).is_ok()));
        let (waited, ()) = tokio::join!(start, async move { tell.send(()).unwrap() });
        assert!(waited.unwrap(), "the thread was blocked");
    }

    #[test]
    fn what_is_started_outlives_the_runtime_of_who_asked_but_not_its_handle() {
        let runs = |pid: u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
        let thread = thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let mut command = Command::new("sleep");
                command.arg("1000");
                Child::start(command).await.unwrap()
            })
        });
        let child = thread.join().unwrap();
        let pid = child.pid().unwrap();
        assert!(runs(pid));
        drop(child);
        assert!(!runs(pid));
    }

    #[tokio::test]
    async fn whom_nobody_waits_for_any_more_is_ended() {
        let ((go, gone), (tell, told)) = (mpsc::channel::<()>(), mpsc::channel());
        let mut start = Box::pin(on_starter(move || {
            let _ = gone.recv();
            let mut command = Command::new("sleep");
            command.arg("1000");
            let child = Child::spawn(command);
            tell.send(child.as_ref().ok().and_then(Child::pid)).unwrap();
            child
        }));
        let begun = start.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(begun.is_pending());
        drop(start);
        go.send(()).unwrap();
        let pid = told.recv().unwrap().unwrap();
        while std::path::Path::new(&format!("/proc/{pid}")).exists() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn who_exits_waits_for_what_is_being_started() {
        let (tell, told) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut start = Box::pin(on_starter(move || {
                let mut command = Command::new("sleep");
                command.arg("1000");
                let child = Child::spawn(command)?;
                tell.send(child.pid().unwrap()).unwrap();
                Ok(child)
            }));
            let _ = start.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        });
        finish_starts();
        let pid = told.try_recv().unwrap();
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_told() {
        assert!(Child::start(Command::new("/no/such")).await.is_err());
    }
}
