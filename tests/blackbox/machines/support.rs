//! A server that machines reach over their network, and agents on them.

use crate::{
    AGENT, PROGRAM,
    agents::support::{self, Tally, server_named},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use tests::{
    Agent, AgentOptions, Backend, Client, Machine, Machines, Server, ServerOptions, eventually, fresh_postgres,
    shared_postgres,
};

/// What every machine has.
const IMAGE: &str = test_engine::images::BUSYBOX;

/// A server that listens on the machines' network, by TLS, and where its tasks say how often they were run.
pub(super) struct Site {
    pub(super) server: Server,
    pub(super) tally: Tally,
    directory: TempDir,
}

impl Site {
    /// On an empty database, with these arguments.
    pub(super) fn start(machines: &Machines, backend: Backend, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (certificate(&directory), directory.path().join("site.key"));
        let made = rcgen::generate_simple_self_signed(vec![machines.address().to_string()]).unwrap();
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        // The same one after a restart, as agents expect of a server.
        let listen = format!("{}:{}", machines.address(), machines.free_port());
        let own =
            ["--listen", &listen, "--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        let arguments = [&own[..], arguments].concat().into_iter().map(str::to_owned).collect();
        let database_url = (backend == Backend::Postgres).then(|| fresh_postgres(&shared_postgres()));
        let server = Server::start_with(ServerOptions { program: PROGRAM.into(), database_url, arguments });
        Self { server, tally: Tally::new(), directory }
    }

    pub(super) fn admin(&self) -> Client {
        Client::trusting(&self.server.base, Some(&self.server.admin_secret()), &certificate(&self.directory))
    }

    /// The certificate that its clients trust.
    pub(super) fn certificate(&self) -> PathBuf {
        certificate(&self.directory)
    }

    /// Kills the server and starts it again. Every agent opens another session then, and says what its machine is.
    pub(super) fn restart(&mut self) {
        self.server.kill();
        self.server.restart();
    }

    /// The agent of a machine: it has joined, and is there.
    pub(super) async fn agent(&self, machine: &Machine, name: &str) -> Agent {
        self.agent_of(machine, name, AGENT.as_ref(), json!({})).await
    }

    /// The same as this program, with a join token that has these members.
    pub(super) async fn agent_of(&self, machine: &Machine, name: &str, program: &Path, token: Value) -> Agent {
        let admin = self.admin();
        let paths = [machine.engine().socket(), self.tally.folder(), certificate(&self.directory)];
        let [socket, folder, certificate] = paths.map(|path| path.to_str().unwrap().to_owned());
        let arguments = ["--allow-exec", "--docker-socket", &socket, "--allow-mount", &folder, "--ca", &certificate];
        let options = AgentOptions {
            program: program.to_owned(),
            server: self.server.base.clone(),
            name: name.to_owned(),
            arguments: arguments.map(str::to_owned).to_vec(),
            ..AgentOptions::default()
        };
        let agent = Agent::join_through(machine.prefix(), options, &support::join_token(&admin, token).await);
        eventually(&format!("{name} to be online"), async || {
            let row = server_named(&admin, name).await?;
            (row["status"] == "online" && agent.has_had_a_session()).then_some(())
        })
        .await;
        agent
    }

    /// Posts a container that runs this shell script, with other members as well; its id.
    ///
    /// It sees the folder of the tally where a process sees it, too.
    pub(super) async fn container(&self, script: &str, more: Value) -> i64 {
        let folder = self.tally.folder().to_str().unwrap().to_owned();
        let mut body = from_image(IMAGE);
        body["mounts"] = json!([{ "source": folder, "target": folder }]);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        support::shell(&self.admin(), script, body).await
    }

    /// A script that counts its runs under this name, waits for its gate, and goes on.
    pub(super) fn waiting(&self, name: &str, rest: &str) -> String {
        let gate = self.gate(name);
        self.tally.script(name, &format!("until [ -e {} ]; do sleep 0.1; done; {rest}", gate.display()))
    }

    /// Lets it go on.
    pub(super) fn open(&self, name: &str) {
        fs::write(self.gate(name), "").unwrap();
    }

    fn gate(&self, name: &str) -> PathBuf {
        self.tally.file(&format!("{name}.gate"))
    }

    /// Waits until a task runs, and has begun to.
    pub(super) async fn runs(&self, task: i64, name: &str) {
        support::becomes(&self.admin(), task, "running").await;
        self.tally.has_run(name).await;
    }

    /// Everything has ended: the books are right, all room is free, no process is left and no container.
    pub(super) async fn check_at_rest(&self, all: &[(&Machine, &Agent)]) {
        let leftovers: Vec<_> = all.iter().map(|(_, agent)| agent.leftovers()).collect();
        support::check_at_rest(&self.admin(), &leftovers).await;
        for (machine, agent) in all {
            let label = label(agent);
            let none = async || machine.engine().containers(&label).await.is_empty().then_some(());
            eventually("all containers to be removed", none).await;
        }
    }
}

/// What makes a container of a task.
pub(super) fn from_image(image: &str) -> Value {
    json!({ "driver": "docker", "image": image })
}

/// The same with an image that nobody can be asked about at the moment.
pub(super) fn from_image_unasked(image: &str) -> Value {
    let mut body = from_image(image);
    body.as_object_mut().unwrap().extend(unasked().as_object().unwrap().clone());
    body
}

/// What makes a task of an image that nobody can be asked about.
pub(super) fn unasked() -> Value {
    json!({ "required_architecture": support::native(), "verify_image": false })
}

fn certificate(directory: &TempDir) -> PathBuf {
    directory.path().join("site.crt")
}

/// What every container of an agent carries.
pub(super) fn label(agent: &Agent) -> String {
    format!("org.starlink.installation={}", agent.installation().unwrap())
}

/// What the container of the first attempt of a task is called.
pub(super) fn container_name(agent: &Agent, task: i64) -> String {
    format!("starlink-{}-{task}-1", agent.installation().unwrap())
}

/// Waits until a container has ended, which need not be known to anybody but the engine.
pub(super) async fn container_ends(machine: &Machine, agent: &Agent, task: i64) {
    let (label, name) = (label(agent), container_name(agent, task));
    let ended = async || (!machine.engine().running(&label).await.contains(&name)).then_some(());
    eventually(&format!("{name} to end"), ended).await;
}

/// Waits until nothing is left of the process of a task, which need not be known to anybody.
pub(super) async fn process_ends(agent: &Agent, task: i64) {
    let mark = format!("-{task}-1");
    eventually(&format!("the process of task {task} to end"), async || {
        let running = agent.leftovers().running();
        (!running.iter().any(|(_, words)| words.contains(" shim ") && words.trim_end().ends_with(&mark))).then_some(())
    })
    .await;
}

/// The task has ended with this code at its first attempt, and was run once.
pub(super) async fn check_end(site: &Site, task: i64, name: &str, code: i64) {
    let admin = site.admin();
    let end = support::ended(&admin, task).await;
    let status = if code == 0 { "completed" } else { "failed" };
    assert_eq!((end.at("/status"), end.at("/attempt")), (json!(status), json!(1)), "{}", end.text);
    assert_eq!(support::attempt(&admin, task).await["exit_code"], code, "{}", end.text);
    assert_eq!(site.tally.runs(name), 1, "{}", end.text);
}
