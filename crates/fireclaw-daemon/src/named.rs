//! What the daemon does with named sandboxes.

use std::path::PathBuf;
use std::time::Duration;

use fireclaw_host::PathError;
use fireclaw_image::{Manifest, Silent};
use fireclaw_protocol::message::ExecRequest;
use fireclaw_sandbox::disks;
use fireclaw_template::names;
use fireclaw_vm::{Commands, RunDir};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::sandbox::{self, Order, Session};
use crate::sandbox_config::SandboxConfig;
use crate::sandbox_status::SandboxStatus;
use crate::state::{SandboxRow, SandboxWanted as Wanted, now};
use crate::{Actor, Daemon, Error, Result};

/// The longest that a program may be given to end.
const LONGEST_GRACE: Duration = Duration::from_secs(3600);

/// All that is known of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListedSandbox {
    /// What it is called.
    pub name: String,
    /// What its directory is called.
    pub id: String,
    /// How it is.
    #[serde(flatten)]
    pub status: SandboxStatus,
    /// What it is made from.
    pub config: SandboxConfig,
    /// When it was made: seconds since the epoch.
    pub created: i64,
    /// When it was last started.
    pub started: Option<i64>,
    /// When that ended.
    pub ended: Option<i64>,
    /// The file of what its program wrote.
    pub log: PathBuf,
}

impl Daemon {
    /// Makes a sandbox; its name. Without one it is called by its id.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::NameTaken`], [`Error::Image`].
    pub(crate) async fn create_sandbox(
        &self,
        who: &Actor,
        name: Option<String>,
        config: SandboxConfig,
    ) -> Result<String> {
        let id = RunDir::fresh_id()?;
        let name = name.unwrap_or_else(|| id.clone());
        check_name(&name)?;
        let image = config.image.clone();
        let row = fresh_row(name.clone(), id.clone(), config);
        let (home, owner) = (self.shared().config.home.clone(), id);
        let directory = self.vms().sandbox_directory(&owner);
        let pinned = disks::apart(move || {
            fireclaw_image::pin(&home, &image, &owner, &Silent)?;
            // While it is there its image stays, also if the state is lost.
            Ok(std::fs::create_dir_all(&directory).map_err(PathError::at("create", directory))?)
        });
        pinned.await?;
        let added = self.shared().state.borrow_mut().add_sandbox(&row);
        if let Err(e) = added {
            sandbox::forget(self.shared(), self.vms_rc(), &row).await?;
            return Err(e);
        }
        self.audit(who, &format!("create {name}"));
        self.live(row, false);
        Ok(name)
    }

    fn live(&self, row: SandboxRow, runs: bool) {
        let id = row.id.clone();
        let handle = sandbox::begin(self.shared_rc(), self.vms_rc(), row, runs);
        let mut named = self.named().borrow_mut();
        named.retain(|_, handle| !handle.orders.is_closed());
        named.insert(id, handle);
    }

    /// Brings every sandbox to where it was wanted, and frees what is nobody's.
    pub(crate) async fn reconcile_sandboxes(&self) -> Result<()> {
        let rows = self.shared().state.borrow().sandboxes()?;
        let known: Vec<_> = rows.iter().map(|row| row.id.clone()).collect();
        let (gone, rows): (Vec<_>, _) =
            rows.into_iter().partition(|row| row.wanted == Wanted::Gone);
        for row in rows {
            // One that still has its VM was being stopped when the last daemon ended.
            let is_stopping = row.wanted == Wanted::Stopped && row.process.is_some();
            let is_wanted = row.wanted == Wanted::Running
                || row.config.restart.even_if_stopped() && !is_stopping;
            let may_run = row.process.is_some() || self.no_stray_vms().is_ok();
            self.live(row, is_wanted && may_run);
        }
        self.known().send_replace(true);
        // What cannot be freed now is no reason to keep the others from their work.
        for row in gone {
            let freed = async {
                sandbox::clear(self.shared(), self.vms_rc(), &row.id).await?;
                sandbox::forget(self.shared(), self.vms_rc(), &row).await
            };
            if let Err(e) = freed.await {
                self.shared().trouble(format!("{} was not removed: {e}", row.name));
            }
        }
        let (home, directory) = (self.shared().config.home.clone(), self.vms().sandboxes());
        // Pins of those that were never made. What has a directory was somebody's, of a state
        // that was lost and may come back.
        let unpinned = disks::apart(move || {
            let is_left = |id: &&String| !known.contains(*id) && !directory.join(*id).exists();
            for owner in Manifest::read(&home)?.pinned.keys().filter(is_left) {
                fireclaw_image::unpin(&home, owner, &Silent)?;
            }
            Ok(())
        });
        if let Err(e) = unpinned.await {
            self.shared().trouble(format!("images of sandboxes that are gone: {e}"));
        }
        Ok(())
    }

    /// Refuses what a VM that the state does not know may be in the way of: it may be this
    /// sandbox's, and write to its disk.
    fn no_stray_vms(&self) -> Result<()> {
        if self.shared().unknown.borrow().is_empty() {
            return Ok(());
        }
        let problem = "VMs are running that state.db does not know, and one may use its disk";
        Err(Error::Unsupported(problem.into()))
    }

    fn sandbox_orders(&self, name: &str) -> Result<mpsc::Sender<Order>> {
        let named = self.named().borrow();
        // One that removed itself is not there.
        let mut living = named.values().filter(|handle| !handle.orders.is_closed());
        let known_names = || named.values().map(|handle| handle.name.clone()).collect();
        living.find(|handle| handle.name == name).map(|handle| handle.orders.clone()).ok_or_else(
            || Error::UnknownSandbox {
                name: name.to_owned(),
                is_agent: self.row(name).is_ok(),
                known_names: known_names(),
            },
        )
    }

    async fn order<T>(
        &self,
        name: &str,
        order: impl FnOnce(oneshot::Sender<Result<T>>) -> Order,
    ) -> Result<T> {
        let orders = self.sandbox_orders(name)?;
        let (done, is_done) = oneshot::channel();
        // One that has gone meanwhile answers nothing more.
        let gone = || self.sandbox_orders(name).err().unwrap_or(Error::Ending);
        orders.send(order(done)).await.map_err(|_| gone())?;
        is_done.await.map_err(|_| gone())?
    }

    /// Waits until the sandboxes of an earlier daemon are known.
    pub(crate) async fn sandboxes_known(&self) -> Result<()> {
        let mut known = self.known().subscribe();
        let waited = known.wait_for(|known| *known).await;
        waited.map(drop).map_err(|_| Error::Ending)
    }

    /// Starts a sandbox; returns once its program runs.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`], and whatever keeps it from starting.
    pub(crate) async fn start_sandbox(&self, who: &Actor, name: &str) -> Result<()> {
        self.sandbox_orders(name)?;
        self.no_stray_vms()?;
        self.audit(who, &format!("start {name}"));
        self.order(name, Order::Start).await
    }

    /// Stops a sandbox: its program has so long to end. Its disk is kept.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`].
    pub(crate) async fn stop_sandbox(
        &self,
        who: &Actor,
        name: &str,
        grace: Duration,
    ) -> Result<()> {
        self.sandbox_orders(name)?;
        self.audit(who, &format!("stop {name}"));
        self.order(name, |done| Order::Stop(grace.min(LONGEST_GRACE), done)).await
    }

    /// Removes a sandbox with its disk.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`]; [`Error::Running`] unless it is forced.
    pub(crate) async fn remove_sandbox(&self, who: &Actor, name: &str, force: bool) -> Result<()> {
        self.sandbox_orders(name)?;
        self.no_stray_vms()?;
        self.audit(who, &format!("rm {name}"));
        self.order(name, |done| Order::Remove(force, done)).await?;
        self.named().borrow_mut().retain(|_, handle| !handle.orders.is_closed());
        Ok(())
    }

    /// Passes a signal to a sandbox's program.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`], [`Error::SandboxNotNow`].
    pub(crate) async fn signal_sandbox(&self, who: &Actor, name: &str, signal: i32) -> Result<()> {
        self.sandbox_orders(name)?;
        self.audit(who, &format!("signal {name} {signal}"));
        self.order(name, |done| Order::Signal(signal, done)).await
    }

    /// Calls a sandbox something else.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`], [`Error::BadName`], [`Error::NameTaken`].
    pub(crate) async fn rename_sandbox(&self, who: &Actor, name: &str, to: &str) -> Result<()> {
        check_name(to)?;
        let orders = self.sandbox_orders(name)?;
        let id = self.sandbox_row(name)?.id;
        self.shared().state.borrow().rename_sandbox(&id, to)?;
        self.audit(who, &format!("rename {name} {to}"));
        if let Some(handle) = self.named().borrow_mut().get_mut(&id) {
            to.clone_into(&mut handle.name);
        }
        orders.send(Order::Rename(to.to_owned())).await.map_err(|_| Error::Ending)
    }

    /// What starts `request` in a sandbox, whose own ways it takes on; that it is asked for is
    /// written down.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`], [`Error::SandboxNotNow`].
    pub(crate) async fn sandbox_commands(
        &self,
        who: &Actor,
        name: &str,
        request: &mut ExecRequest,
    ) -> Result<Commands> {
        self.sandbox_orders(name)?;
        self.sandbox_row(name)?.config.complete(request);
        let words: Vec<_> = request.argv.iter().map(|w| String::from_utf8_lossy(w)).collect();
        self.audit(who, &format!("exec {name} {}", words.join(" ")));
        self.order(name, Order::Commands).await
    }

    /// A session with a sandbox's program, which is started before if that is asked.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`], [`Error::SandboxNotNow`], [`Error::NoCommand`], and whatever
    /// keeps it from starting.
    pub(crate) async fn attach_sandbox(
        &self,
        who: &Actor,
        name: &str,
        start: bool,
    ) -> Result<Session> {
        self.sandbox_orders(name)?;
        let row = self.sandbox_row(name)?;
        if row.config.command.is_empty() {
            return Err(Error::NoCommand { name: name.to_owned() });
        }
        if start {
            self.no_stray_vms()?;
        }
        self.audit(who, &format!("attach {name}"));
        self.order(name, |done| Order::Attach(start, done)).await
    }

    /// Waits until nothing of a sandbox runs, and nothing will by itself; how it is then.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`].
    pub(crate) async fn wait_for_sandbox(&self, name: &str) -> Result<SandboxStatus> {
        self.sandbox_orders(name)?;
        let status = {
            let named = self.named().borrow();
            let found = named.values().find(|handle| handle.name == name);
            found.map(|handle| handle.status.clone()).ok_or(Error::Ending)?
        };
        let mut status = status;
        let over = status.wait_for(|status| status.condition.is_over()).await;
        Ok(over.map_err(|_| Error::Ending)?.clone())
    }

    fn sandbox_row(&self, name: &str) -> Result<SandboxRow> {
        let rows = self.shared().state.borrow().sandboxes()?;
        rows.into_iter().find(|row| row.name == name).ok_or(Error::Ending)
    }

    /// All sandboxes by name.
    pub(crate) fn sandboxes(&self) -> Result<Vec<ListedSandbox>> {
        let rows = self.shared().state.borrow().sandboxes()?;
        let named = self.named().borrow();
        let listed = rows.into_iter().filter_map(|row| {
            let status = named.get(&row.id)?.status.borrow().clone();
            Some(ListedSandbox {
                log: self.vms().sandbox_directory(&row.id).join(sandbox::LOG),
                name: row.name,
                id: row.id,
                status,
                config: row.config,
                created: row.created,
                started: row.started,
                ended: row.ended,
            })
        });
        Ok(listed.collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`].
    pub(crate) fn sandbox(&self, name: &str) -> Result<ListedSandbox> {
        self.sandbox_orders(name)?;
        let all = self.sandboxes()?;
        all.into_iter().find(|sandbox| sandbox.name == name).ok_or(Error::Ending)
    }

    /// Lets go of all sandboxes; their VMs live on.
    pub(crate) async fn release_sandboxes(&self) {
        let orders: Vec<_> =
            self.named().borrow().values().map(|handle| handle.orders.clone()).collect();
        for orders in orders {
            let _ = orders.send(Order::Release).await;
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    names::check_agent(name)
        .map_err(|e| Error::BadName { name: name.to_owned(), problem: e.to_string() })
}

fn fresh_row(name: String, id: String, config: SandboxConfig) -> SandboxRow {
    SandboxRow {
        name,
        id,
        config,
        wanted: Wanted::Stopped,
        machine: None,
        process: None,
        status: None,
        problem: None,
        restarts: 0,
        created: now(),
        started: None,
        ended: None,
    }
}
