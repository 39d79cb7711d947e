//! The agent of the machine that the server runs on: it speaks with the server like any other, over HTTP, but starts and
//! stops with it, and needs nobody to give it a join token.

use crate::{
    composition::{Services, StartError},
    config::LocalAgent,
    data_dir::DataDir,
};
use chrono::TimeDelta;
use domain::{
    Error,
    clock::Clock,
    fleet::EnrollmentRequest,
    identity::{Actor, Secret},
    text::{Name, Tags},
};
use starlink_agent::{
    agent::{Agent, Host, HostOptions, Options, Periods},
    client::{PlainHttp, ServerAddress, Wire},
    drivers::docker,
    state::StateDir,
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{sync::watch, task::JoinHandle};

/// How long the token is good that it joins with.
const GOOD_FOR: TimeDelta = TimeDelta::minutes(10);

/// Starts the agent of this machine, which asks at `address`, where plain HTTP is spoken. What it cannot do is told in
/// the log and never prevents the start: the server is of use without it.
///
/// # Errors
/// If the database cannot be asked.
pub async fn start(
    settings: &LocalAgent,
    services: &Services,
    data: &DataDir,
    clock: Arc<dyn Clock>,
    address: SocketAddr,
    stopping: watch::Receiver<bool>,
) -> Result<Option<JoinHandle<()>>, StartError> {
    let state = match StateDir::open(&data.join("agent")) {
        Ok(state) => state,
        Err(error) => return Ok(without(&error)),
    };
    let token = match state.token() {
        Ok(token) => token,
        Err(error) => return Ok(without(&error)),
    };
    let join_token = match &token {
        Some(token) if is_known(services, token).await? => None,
        _ => Some(join_token(services, &*clock).await?),
    };
    let options = match options(settings, state, clock, address, join_token) {
        Ok(options) => options,
        Err(error) => return Ok(without(&*error)),
    };
    match Agent::start(options) {
        Ok(agent) => Ok(Some(tokio::spawn(attend(agent, stopping)))),
        Err(error) => Ok(without(&error)),
    }
}

fn without<T>(error: &dyn std::error::Error) -> Option<T> {
    let error = domain::error::with_causes(error);
    tracing::warn!(error, "this machine runs no tasks: its agent was not started");
    None
}

async fn is_known(services: &Services, token: &Secret) -> Result<bool, StartError> {
    match services.sessions.still(&token.digest(), None).await {
        Ok(_) => Ok(true),
        Err(denied) if matches!(denied.error, Error::Unauthenticated { .. }) => Ok(false),
        Err(denied) => Err(denied.error.into()),
    }
}

async fn join_token(services: &Services, clock: &dyn Clock) -> Result<Secret, StartError> {
    let request = EnrollmentRequest {
        name: Name::trusted("the server's own machine".to_owned()),
        pool_id: None,
        tags: Tags::default(),
        max_uses: 1,
        expires_at: Some(clock.now() + GOOD_FOR),
    };
    let made = services.enrollments.enrollment_create(&Actor::system("startup"), request, None).await?;
    Ok(made.1)
}

fn options(
    settings: &LocalAgent,
    state: StateDir,
    clock: Arc<dyn Clock>,
    address: SocketAddr,
    join_token: Option<Secret>,
) -> Result<Options, Box<dyn std::error::Error>> {
    let docker_socket = match &settings.docker_socket {
        Some(socket) => socket.clone(),
        None => docker::socket(std::env::var("DOCKER_HOST").ok().as_deref())?,
    };
    let host = HostOptions {
        docker_socket: Some(docker_socket),
        logins: docker::logins(settings.registry_auth.as_deref())?,
        allow_mounts: settings.allow_mounts.clone(),
        allow_exec: settings.allow_exec,
        exec_user: settings.exec_user.clone(),
        allow_root: settings.exec_allow_root,
        program: std::env::current_exe()?,
    };
    let Host { drivers, survey, gauges } = Host::real(&host, &state, clock.clone())?;
    let wire = Wire::new(ServerAddress::parse(&format!("http://{address}"), PlainHttp::Loopback)?, None)?;
    let periods = Periods::default();
    Ok(Options { state, wire, name: None, join_token, drivers, survey, gauges, clock, periods })
}

/// Runs the agent until the server stops; what it has begun runs on.
async fn attend(mut agent: Agent, mut stopping: watch::Receiver<bool>) {
    let stopped = tokio::select! {
        stopped = agent.ended() => Some(stopped),
        _ = stopping.wait_for(|stopping| *stopping) => None,
    };
    match stopped {
        Some(reason) => tracing::error!("this machine runs no tasks any more: {reason}"),
        None => agent.stop().await,
    }
}
