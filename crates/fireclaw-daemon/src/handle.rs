//! The daemon from any thread: every command that a front can give, and all events.

use std::time::Duration;

use fireclaw_llm::ModelInfo;
use fireclaw_protocol::message::ExecRequest;
use fireclaw_template::{Entry, Template};
use fireclaw_vm::Commands;
use futures_util::FutureExt;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::daemon::Job;
use crate::question::Question;
use crate::sandbox::Session;
use crate::sandboxes;
use crate::state::Act;
use crate::{
    Actor, Daemon, Error, Event, Events, Listed, ListedSandbox, NetworkStatus, Result,
    SandboxConfig, SandboxStatus, event,
};

/// The daemon, for fronts. Clones are the same; each command runs on the daemon's thread, at
/// the same time as others.
///
/// Every method fails with [`Error::Ending`] once the daemon has gone.
#[derive(Debug, Clone)]
pub struct Handle {
    jobs: mpsc::Sender<Job>,
    events: broadcast::Sender<Event>,
}

impl Daemon {
    /// What gives it commands, from any thread.
    pub fn handle(&self) -> Handle {
        Handle { jobs: self.jobs(), events: self.shared().events.clone() }
    }
}

impl Handle {
    /// All events from now on.
    pub fn events(&self) -> Events {
        Events(self.events.subscribe())
    }

    /// Has the daemon do something, and waits for what comes of it.
    async fn ask<T, W>(&self, work: impl FnOnce(Daemon) -> W + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        W: Future<Output = Result<T>> + 'static,
    {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |daemon| {
            async move {
                // Who asked may have gone.
                let _ = tell.send(work(daemon).await);
            }
            .boxed_local()
        });
        self.jobs.send(job).await.map_err(|_| Error::Ending)?;
        told.await.map_err(|_| Error::Ending)?
    }

    /// Whether agents can be connected to a chat network.
    ///
    /// # Errors
    /// None of its own.
    pub async fn has_chat(&self) -> Result<bool> {
        self.ask(async |daemon: Daemon| Ok(daemon.config().chat.is_there())).await
    }

    /// Makes an agent from a template; its name. It boots when this returns.
    ///
    /// # Errors
    /// [`Error::Template`], [`Error::BadName`], [`Error::NameTaken`].
    pub async fn invoke(
        &self,
        who: &Actor,
        template: &str,
        name: Option<&str>,
        model: Option<&str>,
    ) -> Result<String> {
        let (who, template) = (who.clone(), template.to_owned());
        let (name, model) = (name.map(str::to_owned), model.map(str::to_owned));
        self.ask(async move |daemon: Daemon| {
            daemon.invoke(&who, &template, name.as_deref(), model.as_deref()).await
        })
        .await
    }

    /// Ends an agent; its workspace stays for the next one of its name. `reason` is what it
    /// says as it goes.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub async fn destroy(&self, who: &Actor, name: &str, reason: &str) -> Result<()> {
        let (who, name, reason) = (who.clone(), name.to_owned(), reason.to_owned());
        self.ask(async move |daemon: Daemon| daemon.destroy(&who, &name, &reason).await).await
    }

    /// Removes the workspace, the memories and the log of an agent that no longer runs.
    ///
    /// # Errors
    /// [`Error::Running`], [`Error::NoWorkspace`], [`Error::BadName`], [`Error::File`].
    pub async fn remove(&self, who: &Actor, name: &str) -> Result<()> {
        let (who, name) = (who.clone(), name.to_owned());
        self.ask(async move |daemon: Daemon| daemon.remove(&who, &name).await).await
    }

    /// All agents by name.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn list(&self) -> Result<Vec<Listed>> {
        self.ask(async |daemon: Daemon| daemon.list()).await
    }

    /// Stops an agent's VM where it is, or lets it go on.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`]; [`Error::Template`] if it failed to restore and still does.
    pub async fn pause(&self, who: &Actor, name: &str, paused: bool) -> Result<()> {
        let (who, name) = (who.clone(), name.to_owned());
        self.ask(async move |daemon: Daemon| daemon.pause(&who, &name, paused).await).await
    }

    /// Gives an agent another model, which must be there.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], [`Error::Model`].
    pub async fn set_model(&self, who: &Actor, name: &str, model: &str) -> Result<()> {
        let (who, name, model) = (who.clone(), name.to_owned(), model.to_owned());
        self.ask(async move |daemon: Daemon| daemon.set_model(&who, &name, &model).await).await
    }

    /// An agent's persona now.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub async fn persona(&self, name: &str) -> Result<String> {
        let name = name.to_owned();
        self.ask(async move |daemon: Daemon| daemon.persona(&name)).await
    }

    /// Gives an agent another persona.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub async fn set_persona(&self, who: &Actor, name: &str, persona: &str) -> Result<()> {
        let (who, name, persona) = (who.clone(), name.to_owned(), persona.to_owned());
        self.ask(async move |daemon: Daemon| daemon.set_persona(&who, &name, &persona).await).await
    }

    /// Has every agent take its template on as it is now.
    ///
    /// # Errors
    /// None but that of all.
    pub async fn reload(&self) -> Result<()> {
        self.ask(async |daemon: Daemon| {
            daemon.reload().await;
            Ok(())
        })
        .await
    }

    /// Has one agent take its template on, with the template's model and persona.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], [`Error::Template`].
    pub async fn reset(&self, who: &Actor, name: &str) -> Result<()> {
        let (who, name) = (who.clone(), name.to_owned());
        self.ask(async move |daemon: Daemon| daemon.reset(&who, &name).await).await
    }

    /// The last lines of an agent's log.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub async fn logs(&self, name: &str, lines: usize) -> Result<Vec<String>> {
        let name = name.to_owned();
        self.ask(async move |daemon: Daemon| daemon.logs(&name, lines).await).await
    }

    /// What an agent may reach, and what was refused; none if it has no network interface.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`]; [`Error::NotNow`] if it has no VM now.
    pub async fn network(&self, name: &str) -> Result<Option<NetworkStatus>> {
        let name = name.to_owned();
        self.ask(async move |daemon: Daemon| daemon.network(&name).await).await
    }

    /// Asks the people whether an agent may reach more: the question, which is put to them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if its policy has no list, or for what is no target;
    /// [`Error::TooManyQuestions`].
    pub async fn ask_to_reach(&self, who: &Actor, name: &str, target: &str) -> Result<Question> {
        let (who, name, target) = (who.clone(), name.to_owned(), target.to_owned());
        self.ask(async move |daemon: Daemon| daemon.ask_to_reach(&who, &name, &target)).await
    }

    /// Questions that wait for an answer.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn questions(&self) -> Result<Vec<Question>> {
        self.ask(async |daemon: Daemon| daemon.questions()).await
    }

    /// Allows what a question asks for. `digest` is the question's, as people read it; it may
    /// be left out while only one is open.
    ///
    /// # Errors
    /// [`Error::NoQuestion`], [`Error::Unconfirmed`].
    pub async fn grant(&self, who: &Actor, id: u64, digest: Option<&str>) -> Result<Question> {
        let (who, digest) = (who.clone(), digest.map(str::to_owned));
        self.ask(async move |daemon: Daemon| daemon.grant(&who, id, digest.as_deref()).await).await
    }

    /// Refuses what a question asks for.
    ///
    /// # Errors
    /// [`Error::NoQuestion`].
    pub async fn refuse(&self, who: &Actor, id: u64, reason: &str) -> Result<Question> {
        let (who, reason) = (who.clone(), reason.to_owned());
        self.ask(async move |daemon: Daemon| daemon.refuse(&who, id, &reason).await).await
    }

    /// Runs a command in an agent's VM; its exit status and what it wrote. Dropping the future
    /// ends the command.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], [`Error::NotNow`].
    pub async fn exec(
        &self,
        who: &Actor,
        name: &str,
        request: ExecRequest,
        limit: Duration,
    ) -> Result<(Option<u8>, String)> {
        let commands = self.commands(who, name, &request).await?;
        sandboxes::run(&commands, request, limit).await
    }

    /// What starts `request` in an agent's VM; that it is asked for is written down.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], [`Error::NotNow`].
    pub async fn commands(
        &self,
        who: &Actor,
        name: &str,
        request: &ExecRequest,
    ) -> Result<Commands> {
        let (who, name, request) = (who.clone(), name.to_owned(), request.clone());
        self.ask(async move |daemon: Daemon| daemon.commands(&who, &name, &request).await).await
    }

    /// Waits until the sandboxes of an earlier daemon are known.
    ///
    /// # Errors
    /// None of its own.
    pub async fn sandboxes_known(&self) -> Result<()> {
        self.ask(async |daemon: Daemon| daemon.sandboxes_known().await).await
    }

    /// Makes a sandbox; its name. Without one it is called by its id.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::NameTaken`], [`Error::Image`].
    pub async fn create_sandbox(
        &self,
        who: &Actor,
        name: Option<String>,
        config: SandboxConfig,
    ) -> Result<String> {
        let who = who.clone();
        self.ask(async move |daemon: Daemon| daemon.create_sandbox(&who, name, config).await).await
    }

    /// All sandboxes by name.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn sandboxes(&self) -> Result<Vec<ListedSandbox>> {
        self.ask(async |daemon: Daemon| daemon.sandboxes()).await
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`].
    pub async fn sandbox(&self, name: &str) -> Result<ListedSandbox> {
        let name = name.to_owned();
        self.ask(async move |daemon: Daemon| daemon.sandbox(&name)).await
    }

    /// Starts a sandbox; returns once its program runs.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`], and whatever keeps it from starting.
    pub async fn start_sandbox(&self, who: &Actor, name: &str) -> Result<()> {
        let (who, name) = (who.clone(), name.to_owned());
        self.ask(async move |daemon: Daemon| daemon.start_sandbox(&who, &name).await).await
    }

    /// Stops a sandbox: its program has so long to end. Its disk is kept.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`].
    pub async fn stop_sandbox(&self, who: &Actor, name: &str, grace: Duration) -> Result<()> {
        let (who, name) = (who.clone(), name.to_owned());
        self.ask(async move |daemon: Daemon| daemon.stop_sandbox(&who, &name, grace).await).await
    }

    /// Removes a sandbox with its disk.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`]; [`Error::Running`] unless it is forced.
    pub async fn remove_sandbox(&self, who: &Actor, name: &str, force: bool) -> Result<()> {
        let (who, name) = (who.clone(), name.to_owned());
        self.ask(async move |daemon: Daemon| daemon.remove_sandbox(&who, &name, force).await).await
    }

    /// Passes a signal to a sandbox's program.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`], [`Error::SandboxNotNow`].
    pub async fn signal_sandbox(&self, who: &Actor, name: &str, signal: i32) -> Result<()> {
        let (who, name) = (who.clone(), name.to_owned());
        self.ask(async move |daemon: Daemon| daemon.signal_sandbox(&who, &name, signal).await).await
    }

    /// Calls a sandbox something else.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`], [`Error::BadName`], [`Error::NameTaken`].
    pub async fn rename_sandbox(&self, who: &Actor, name: &str, to: &str) -> Result<()> {
        let (who, name, to) = (who.clone(), name.to_owned(), to.to_owned());
        self.ask(async move |daemon: Daemon| daemon.rename_sandbox(&who, &name, &to).await).await
    }

    /// Waits until nothing of a sandbox runs, and nothing will by itself; how it is then.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`].
    pub async fn wait_for_sandbox(&self, name: &str) -> Result<SandboxStatus> {
        let name = name.to_owned();
        self.ask(async move |daemon: Daemon| daemon.wait_for_sandbox(&name).await).await
    }

    /// What starts `request` in a sandbox, with the sandbox's own ways where it has none; that
    /// it is asked for is written down.
    ///
    /// # Errors
    /// [`Error::UnknownSandbox`], [`Error::SandboxNotNow`].
    pub async fn sandbox_commands(
        &self,
        who: &Actor,
        name: &str,
        mut request: ExecRequest,
    ) -> Result<(Commands, ExecRequest)> {
        let (who, name) = (who.clone(), name.to_owned());
        self.ask(async move |daemon: Daemon| {
            let commands = daemon.sandbox_commands(&who, &name, &mut request).await?;
            Ok((commands, request))
        })
        .await
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
        let (who, name) = (who.clone(), name.to_owned());
        self.ask(async move |daemon: Daemon| daemon.attach_sandbox(&who, &name, start).await).await
    }

    /// The models that there are.
    ///
    /// # Errors
    /// [`Error::Model`].
    pub async fn models(&self) -> Result<Vec<ModelInfo>> {
        self.ask(async |daemon: Daemon| daemon.models().await).await
    }

    /// The templates that there are.
    ///
    /// # Errors
    /// [`Error::Template`].
    pub async fn templates(&self) -> Result<Vec<Entry>> {
        self.ask(async |daemon: Daemon| daemon.templates()).await
    }

    /// A template.
    ///
    /// # Errors
    /// [`Error::Template`].
    pub async fn template(&self, name: &str) -> Result<Template> {
        let name = name.to_owned();
        self.ask(async move |daemon: Daemon| daemon.template(&name)).await
    }

    /// The last privileged acts, oldest first.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn audited(&self, most: u32) -> Result<Vec<Act>> {
        self.ask(async move |daemon: Daemon| daemon.audited(most)).await
    }

    pub(crate) fn tell(&self, event: Event) {
        event::tell(&self.events, event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_goes_anywhere() {
        fn goes<T: Send + Sync + Clone + 'static>() {}
        goes::<Handle>();
    }

    #[tokio::test]
    async fn without_a_daemon_everything_says_so() {
        let (events, _) = broadcast::channel(1);
        let (jobs, _) = mpsc::channel(1);
        let handle = Handle { jobs, events };
        assert!(matches!(handle.list().await, Err(Error::Ending)));
    }
}
