//! The life of one named sandbox: it rests, starts, runs, ends, and is started again or not.

use std::rc::Rc;
use std::time::Duration;

use fireclaw_sandbox::{Ports, Serving};
use fireclaw_vm::{Commands, Guest, RunDir};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{Instrument, info, info_span};

use super::follow::Main;
use super::output::Output;
use crate::sandbox_status::{Progress, SandboxCondition as Condition, SandboxStatus};
use crate::sandboxes::{Vms, leave};
use crate::shared::Shared;
use crate::state::{SandboxRow, SandboxWanted as Wanted};
use crate::{Error, Result};

/// The first wait before a program is started again; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A program that ran so long did not end at once.
const STABLE: Duration = Duration::from_secs(10);

/// How long who is attached may take to hear the last words.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a program has to end whose stop an earlier daemon began.
const GRACE: Duration = Duration::from_secs(10);

/// How long a guest may take to start the program, or to say how it is.
const ANSWER: Duration = Duration::from_secs(60);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// The exit status of a program that had to be killed.
const KILLED: u8 = 137;

/// Who waits for an answer.
type Answer<T> = oneshot::Sender<Result<T>>;

/// Somebody who follows the program.
#[derive(Debug)]
pub struct Session {
    /// What they do it with.
    pub commands: Commands,
    /// Whether they were there before the program.
    pub from_start: bool,
    /// The VM stays for as long as this lives, up to a bound.
    pub stays: mpsc::Sender<()>,
}

/// What a sandbox is asked.
#[derive(Debug)]
pub enum Order {
    /// To start; answered once it runs.
    Start(Answer<()>),
    /// To end its program, within a time; answered when it has ended.
    Stop(Duration, Answer<()>),
    /// To end at once and leave nothing; refused while it runs unless forced.
    Remove(bool, Answer<()>),
    /// To pass this signal to its program.
    Signal(i32, Answer<()>),
    /// For what starts commands in it.
    Commands(Answer<Commands>),
    /// For a session with its program, if need be once it was started.
    Attach(bool, Answer<Session>),
    /// To be called this from now on.
    Rename(String),
    /// To let go of everything without ending it: the daemon is ending.
    Release,
}

/// How the daemon reaches it.
#[derive(Debug)]
pub struct SandboxHandle {
    /// What it is called.
    pub name: String,
    /// Orders to it.
    pub orders: mpsc::Sender<Order>,
    /// How it is.
    pub status: watch::Receiver<SandboxStatus>,
}

/// A sandbox as it lives.
struct Life {
    shared: Rc<Shared>,
    vms: Rc<Vms>,
    row: SandboxRow,
    orders: mpsc::Receiver<Order>,
    progress: Progress,
    restarts: u32,
    /// Whether the VM that it has is to end: its stop was not over when the last daemon ended.
    ends: bool,
    /// Whether somebody sent its program a signal to end.
    by_hand: bool,
    /// Who waits for it to run.
    starting: Vec<Answer<()>>,
    joining: Vec<Answer<Session>>,
    commanding: Vec<Answer<Commands>>,
    /// Who waits for it to have ended.
    stopping: Vec<Answer<()>>,
}

/// How running, or trying to, ends.
enum End {
    /// The program ended with this status.
    Exited(u8),
    /// It was stopped, and ended with this status if it was seen.
    Stopped(Option<u8>),
    /// The VM was lost.
    Lost(String),
    /// It could not be started.
    Failed(Error),
    /// It is to be removed.
    Removed(Answer<()>),
    /// It goes on without this process.
    Released,
}

/// Begins the life of a sandbox of which there is a row; whether it is to run at once.
pub fn begin(shared: &Rc<Shared>, vms: &Rc<Vms>, row: SandboxRow, runs: bool) -> SandboxHandle {
    let (give, orders) = mpsc::channel(64);
    let condition = match row.ended.or(row.started) {
        Some(_) => Condition::Exited,
        None => Condition::Created,
    };
    let status = SandboxStatus {
        condition,
        status: row.status,
        problem: row.problem.clone(),
        pid: None,
        restarts: row.restarts,
        ports: Vec::new(),
    };
    let (progress, told) = Progress::new(status);
    let name = row.name.clone();
    let life = Life {
        shared: Rc::clone(shared),
        vms: Rc::clone(vms),
        restarts: row.restarts,
        ends: !runs && row.process.is_some() && row.ended.is_none(),
        by_hand: false,
        row,
        orders,
        progress,
        starting: Vec::new(),
        joining: Vec::new(),
        commanding: Vec::new(),
        stopping: Vec::new(),
    };
    let span = info_span!("sandbox", sandbox = %name);
    tokio::task::spawn_local(life.run(runs).instrument(span));
    SandboxHandle { name, orders: give, status: told }
}

impl Life {
    async fn run(mut self, mut runs: bool) {
        runs |= self.ends;
        if !runs {
            // What an earlier daemon was still starting, or had ended and not yet cleared away.
            self.clear().await;
        }
        let mut in_a_row = 0u32;
        loop {
            if !runs {
                match self.idle(None).await {
                    None => {}
                    Some(End::Removed(done)) => {
                        if self.remove(done).await {
                            return;
                        }
                        continue;
                    }
                    Some(End::Released) => return,
                    Some(_) => continue,
                }
            }
            runs = false;
            let since = Instant::now();
            let end = self.live().await;
            let ran = since.elapsed();
            let failed = match &end {
                End::Exited(status) => *status != 0,
                _ => true,
            };
            let (status, problem, again) = match end {
                End::Released => return,
                End::Removed(done) => {
                    self.over(Condition::Exited, None, None);
                    if self.remove(done).await {
                        return;
                    }
                    continue;
                }
                End::Stopped(status) => (status, None, false),
                End::Exited(status) => (Some(status), None, true),
                End::Lost(why) => (None, Some(why), true),
                // Nobody waits for it: what keeps it from starting may pass.
                End::Failed(error) if self.starting.is_empty() && self.joining.is_empty() => {
                    (None, Some(error.to_string()), true)
                }
                End::Failed(error) => {
                    if self.fail(error).await {
                        return;
                    }
                    continue;
                }
            };
            if ran > STABLE {
                // It did well; what comes is another matter.
                in_a_row = 0;
            }
            self.note_end(status, problem.as_deref());
            // One whose VM is lost while it is being stopped is stopped.
            let is_wanted = self.row.wanted == Wanted::Running;
            let again = again && is_wanted && self.row.config.restart.again(failed, self.restarts);
            if !again {
                // Before its VM is gone: the next daemon must not start it again.
                self.want(Wanted::Stopped);
            }
            self.clear().await;
            if again {
                let wait = backoff(in_a_row);
                in_a_row += 1;
                self.set_restarts(self.restarts.saturating_add(1));
                self.progress.ended(Condition::Restarting, status, problem, self.restarts);
                match self.idle(Some(wait)).await {
                    None => runs = true,
                    Some(End::Released) => return,
                    Some(End::Removed(done)) => {
                        if self.remove(done).await {
                            return;
                        }
                    }
                    Some(_) => {
                        self.want(Wanted::Stopped);
                        self.over(Condition::Exited, status, None);
                    }
                }
                continue;
            }
            let is_gone = self.remove_if_asked().await;
            self.over(Condition::Exited, status, problem);
            if is_gone {
                return;
            }
        }
    }

    /// Removes it if it is to be gone when its program has ended; whether it is.
    async fn remove_if_asked(&mut self) -> bool {
        if !self.row.config.remove {
            return false;
        }
        let (done, _nobody) = oneshot::channel();
        self.remove(done).await
    }

    /// Rests: for so long, or until it is started. How it ends, unless it is to start.
    async fn idle(&mut self, wait: Option<Duration>) -> Option<End> {
        let over = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        loop {
            let order = tokio::select! {
                () = &mut over => return None,
                order = self.orders.recv() => order,
            };
            match order {
                None | Some(Order::Release) => return Some(End::Released),
                Some(Order::Start(done)) => {
                    self.starting.push(done);
                    self.is_asked_to_run();
                    return None;
                }
                Some(Order::Attach(true, done)) => {
                    self.joining.push(done);
                    self.is_asked_to_run();
                    return None;
                }
                Some(Order::Stop(_, done)) => {
                    self.stopping.push(done);
                    if wait.is_some() {
                        return Some(End::Stopped(None));
                    }
                    self.tell_stopped();
                }
                Some(Order::Remove(_, done)) => return Some(End::Removed(done)),
                Some(order) => self.not_now(order),
            }
        }
    }

    /// Somebody wants it to run.
    fn is_asked_to_run(&mut self) {
        self.want(Wanted::Running);
        self.set_restarts(0);
    }

    /// Answers an order that cannot be carried out as it is.
    fn not_now(&mut self, order: Order) {
        let name = self.row.name.clone();
        let condition = self.progress.condition();
        let refused = || Error::SandboxNotNow { name: name.clone(), condition };
        match order {
            Order::Start(done) | Order::Stop(_, done) | Order::Signal(_, done) => {
                let _ = done.send(Err(refused()));
            }
            Order::Remove(_, done) => {
                let _ = done.send(Err(Error::Running { name }));
            }
            Order::Commands(done) => {
                let _ = done.send(Err(refused()));
            }
            Order::Attach(_, done) => {
                let _ = done.send(Err(refused()));
            }
            Order::Rename(name) => self.row.name = name,
            Order::Release => {}
        }
    }

    /// Starts the VM, or takes it over, and runs the program to its end.
    async fn live(&mut self) -> End {
        self.progress.to(Condition::Starting, |of| of.problem = None);
        if let Ok(Some(row)) = self.shared.state.borrow().sandbox(&self.row.id) {
            self.row = row;
        }
        self.by_hand = false;
        let ends = std::mem::take(&mut self.ends);
        // Its policy may have it run although it was stopped.
        if !ends && self.row.wanted != Wanted::Running {
            self.want(Wanted::Running);
        }
        let (shared, vms, row) = (Rc::clone(&self.shared), Rc::clone(&self.vms), self.row.clone());
        let is_there = row.process.is_some();
        let ports = match Ports::open(&row.config.publish) {
            Ok(ports) => ports,
            // What runs already is worth more than its ports.
            Err(e) if is_there => {
                self.shared.trouble(format!("{}: {e}", row.name));
                self.progress.to(Condition::Starting, |of| of.problem = Some(e.to_string()));
                Ports::none()
            }
            Err(e) => return End::Failed(e.into()),
        };
        let mut stop = ends.then_some(GRACE);
        let coming = async move { come_up(&shared, &vms, &row).await };
        tokio::pin!(coming);
        let (guest, main) = loop {
            let order = tokio::select! {
                up = &mut coming => match up {
                    Ok(up) => break up,
                    Err(Up::Lost(why)) => return End::Lost(why),
                    Err(Up::Failed(e)) => return End::Failed(e),
                },
                order = self.orders.recv() => order,
            };
            match order {
                None | Some(Order::Release) => return End::Released,
                Some(Order::Start(done)) => self.starting.push(done),
                Some(Order::Attach(_, done)) => self.joining.push(done),
                Some(Order::Commands(done)) => self.commanding.push(done),
                // What runs already has its disk written first.
                Some(Order::Stop(grace, done)) if is_there => {
                    self.want(Wanted::Stopped);
                    self.stopping.push(done);
                    stop = Some(grace);
                }
                Some(Order::Stop(_, done)) => {
                    self.stopping.push(done);
                    return End::Stopped(None);
                }
                Some(Order::Remove(true, done)) => return End::Removed(done),
                Some(order) => self.not_now(order),
            }
        };
        let bound = ports.bound();
        let bound = bound.iter().map(|(of, host)| format!("{host}:{}", of.guest())).collect();
        self.progress.to(Condition::Starting, |of| of.ports = bound);
        let serving = match ports.serve(&guest.commands()) {
            Ok(serving) => serving,
            Err(e) => return End::Failed(Error::System("waiting for connections", e)),
        };
        self.serve(guest, main, serving, stop).await
    }

    /// Serves a sandbox whose VM runs until it ends.
    async fn serve(
        &mut self,
        mut guest: Guest,
        mut main: Option<Main>,
        mut ports: Serving,
        stop: Option<Duration>,
    ) -> End {
        let commands = guest.commands();
        let pid = guest.vmm_pid();
        self.progress.to(Condition::Running, |of| of.pid = pid);
        info!("runs");
        for done in self.starting.drain(..) {
            let _ = done.send(Ok(()));
        }
        let (stays, mut all_gone) = mpsc::channel(1);
        for done in self.joining.drain(..) {
            let stays = stays.clone();
            let _ = done.send(Ok(Session { commands: commands.clone(), from_start: true, stays }));
        }
        for done in self.commanding.drain(..) {
            let _ = done.send(Ok(commands.clone()));
        }
        let mut deadline = None;
        // Who asked for it waits already.
        let mut first = stop.map(|grace| Order::Stop(grace, oneshot::channel().0));
        let end = loop {
            let ended = async {
                match &mut main {
                    Some(main) => (&mut main.ended).await,
                    None => std::future::pending().await,
                }
            };
            let late = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let order = tokio::select! {
                biased;
                order = std::future::ready(first.take()), if first.is_some() => order,
                ended = ended => match ended {
                    Ok(Ok(status)) if self.by_hand || self.row.wanted == Wanted::Stopped => {
                        break End::Stopped(Some(status));
                    }
                    Ok(Ok(status)) => break End::Exited(status),
                    // Most often the VMM's end, which says more.
                    Ok(Err(why)) => break End::Lost(lost(&mut guest, why).await),
                    Err(_) => break End::Lost("its log ended".into()),
                },
                death = guest.died() => break End::Lost(death.to_string()),
                () = late => {
                    if let Some(main) = &main {
                        main.signal(SIGKILL);
                    }
                    break End::Stopped(Some(KILLED));
                }
                never = ports.pass_on() => match never {},
                order = self.orders.recv() => order,
            };
            match order {
                None | Some(Order::Release) => return End::Released,
                Some(Order::Stop(grace, done)) => {
                    self.stopping.push(done);
                    self.want(Wanted::Stopped);
                    self.progress.to(Condition::Stopping, |_| {});
                    let Some(main) = &main else { break End::Stopped(None) };
                    main.signal(self.stop_signal());
                    let by = Instant::now() + grace;
                    deadline = Some(deadline.map_or(by, |before: Instant| before.min(by)));
                }
                Some(Order::Remove(true, done)) => break End::Removed(done),
                Some(Order::Signal(signal, done)) => {
                    let _ = done.send(Ok(()));
                    // Who ends it does not want it back, as with Docker.
                    self.by_hand |= [self.stop_signal(), SIGKILL].contains(&signal);
                    match &main {
                        Some(main) => main.signal(signal),
                        // There is nobody else who could end of it.
                        None if [SIGTERM, SIGKILL].contains(&signal) => break End::Stopped(None),
                        None => {}
                    }
                }
                Some(Order::Start(done)) if deadline.is_none() => {
                    self.by_hand = false;
                    let _ = done.send(Ok(()));
                }
                Some(Order::Commands(done)) if deadline.is_none() => {
                    let _ = done.send(Ok(commands.clone()));
                }
                Some(Order::Attach(_, done)) if deadline.is_none() => {
                    let commands = commands.clone();
                    let stays = stays.clone();
                    let _ = done.send(match main {
                        Some(_) => Ok(Session { commands, from_start: false, stays }),
                        None => Err(Error::NoCommand { name: self.row.name.clone() }),
                    });
                }
                Some(order) => self.not_now(order),
            }
        };
        if matches!(end, End::Exited(_) | End::Stopped(_)) {
            drop(stays);
            // Who is attached hears how it ended before the VM goes.
            let _ = tokio::time::timeout(LAST_WORDS, all_gone.recv()).await;
            let left = tokio::select! {
                left = leave(&commands) => left,
                _ = guest.died() => Ok(()),
            };
            if let Err(e) = left {
                self.shared.trouble(format!("{}: {e}", self.row.name));
            }
        }
        if let Err(e) = guest.kill().await {
            self.shared.trouble(format!("{}: {e}", self.row.name));
        }
        end
    }

    /// It cannot be started: who waits for it hears why. Whether it is gone.
    async fn fail(&mut self, error: Error) -> bool {
        self.clear().await;
        let problem = error.to_string();
        let status = match &error {
            Error::Command { status, .. } => Some(*status),
            _ => None,
        };
        self.note_end(status, Some(&problem));
        self.want(Wanted::Stopped);
        info!("could not be started: {problem}");
        let is_gone = self.remove_if_asked().await;
        self.progress.ended(Condition::Failed, status, Some(problem.clone()), self.restarts);
        let mut error = Some(error);
        self.refuse(|| error.take().unwrap_or_else(|| Error::Unsupported(problem.clone())));
        self.tell_stopped();
        is_gone
    }

    /// It is over for now.
    fn over(&mut self, condition: Condition, status: Option<u8>, problem: Option<String>) {
        info!(?status, "has ended");
        self.progress.ended(condition, status, problem, self.restarts);
        let name = self.row.name.clone();
        self.refuse(|| Error::SandboxNotNow { name: name.clone(), condition });
        self.tell_stopped();
    }

    /// Tells who waits for it to run that it does not.
    fn refuse(&mut self, mut why: impl FnMut() -> Error) {
        for done in self.starting.drain(..) {
            let _ = done.send(Err(why()));
        }
        for done in self.joining.drain(..) {
            let _ = done.send(Err(why()));
        }
        for done in self.commanding.drain(..) {
            let _ = done.send(Err(why()));
        }
    }

    fn tell_stopped(&mut self) {
        for done in self.stopping.drain(..) {
            let _ = done.send(Ok(()));
        }
    }

    /// Removes all that is left of it; whether that could be done.
    async fn remove(&mut self, done: Answer<()>) -> bool {
        self.want(Wanted::Gone);
        self.clear().await;
        let removed = super::forget(&self.shared, &self.vms, &self.row).await;
        let is_gone = removed.is_ok();
        if let Err(e) = &removed {
            self.shared.trouble(format!("{} was not removed: {e}", self.row.name));
        }
        self.tell_stopped();
        let _ = done.send(removed);
        is_gone
    }

    /// Ends its VM, whether it is known to run or not.
    async fn clear(&mut self) {
        if let Err(e) = clear(&self.shared, &self.vms, &self.row.id).await {
            self.shared.trouble(format!("{}: its VM could not be removed: {e}", self.row.name));
        }
    }

    /// The signal that has its program end.
    fn stop_signal(&self) -> i32 {
        self.row.config.stop_signal.unwrap_or(SIGTERM)
    }

    fn want(&mut self, wanted: Wanted) {
        self.row.wanted = wanted;
        self.state("want", |state, id| state.want_sandbox(id, wanted));
    }

    fn set_restarts(&mut self, restarts: u32) {
        if self.restarts != restarts {
            self.restarts = restarts;
            self.state("restarts", |state, id| state.set_restarts(id, restarts));
        }
    }

    fn note_end(&self, status: Option<u8>, problem: Option<&str>) {
        self.state("end", |state, id| state.sandbox_ended(id, status, problem));
    }

    fn state(&self, what: &str, change: impl FnOnce(&crate::state::State, &str) -> Result<()>) {
        if let Err(e) = change(&self.shared.state.borrow(), &self.row.id) {
            self.shared.trouble(format!("{}: {what} could not be noted: {e}", self.row.name));
        }
    }
}

/// How long it rests after it has ended so often in a row.
fn backoff(in_a_row: u32) -> Duration {
    FIRST_WAIT.saturating_mul(2u32.saturating_pow(in_a_row)).min(LONGEST_WAIT)
}

/// Why there is no VM.
enum Up {
    /// The one that there was is lost.
    Lost(String),
    /// None could be made.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Up {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The VM that a sandbox has, or a new one, with its program.
async fn come_up(
    shared: &Shared,
    vms: &Vms,
    row: &SandboxRow,
) -> std::result::Result<(Guest, Option<Main>), Up> {
    let tell = |text: &str| shared.tell(crate::Event::Note { text: text.to_owned() });
    let output = || {
        let path = vms.sandbox_directory(&row.id).join(super::LOG);
        Output::new(shared.outputs.clone(), path)
    };
    let follow = async |commands: &Commands| match row.config.main() {
        Some(_) => Ok::<_, Error>(Some(in_time(Main::follow(commands, output())).await??)),
        None => Ok(None),
    };
    if row.machine.is_some() && row.process.is_some() {
        let guest = vms.adopt_sandbox(row, &tell).await;
        let guest = guest.map_err(|e| Up::Lost(format!("its VM was lost: {e}")))?;
        let main = follow(&guest.commands()).await;
        return Ok((guest, main.map_err(|e| Up::Lost(e.to_string()))?));
    }
    // Written down before it is made, so that whatever is left is found.
    clear(shared, vms, &row.id).await?;
    let machine = RunDir::fresh_id().map_err(Error::from)?;
    shared.state.borrow().sandbox_starts(&row.id, &machine)?;
    let guest = vms.start_sandbox(row, &machine, &tell).await?;
    let commands = guest.commands();
    if let Some(request) = row.config.main() {
        let started = in_time(commands.start_main(request)).await?.map_err(Error::from)?;
        started.map_err(|(cause, message)| Error::Command { status: cause.status(), message })?;
    }
    // Only now is it worth being taken over.
    if let Some(process) = guest.stamp() {
        shared.state.borrow().sandbox_runs(&row.id, process)?;
    }
    let main = follow(&commands).await?;
    Ok((guest, main))
}

/// What a guest answers, unless it takes too long.
async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T> {
    let silent = |_| Error::Workspace("the guest does not answer".into());
    tokio::time::timeout(ANSWER, answer).await.map_err(silent)
}

/// Ends a sandbox's VM, whether it is known to run or not, and forgets it.
pub async fn clear(shared: &Shared, vms: &Vms, id: &str) -> Result<()> {
    let row = shared.state.borrow().sandbox(id)?;
    if let Some(machine) = row.and_then(|row| row.machine) {
        vms.clear(&machine).await?;
        shared.state.borrow().sandbox_cleared(id)?;
    }
    Ok(())
}

/// What is behind a loss.
async fn lost(guest: &mut Guest, why: String) -> String {
    match tokio::time::timeout(LAST_WORDS, guest.died()).await {
        Ok(death) => death.to_string(),
        Err(_) => why,
    }
}
