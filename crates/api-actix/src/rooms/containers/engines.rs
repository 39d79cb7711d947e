//! What container engines have, asked of the agents beside them.

use super::live::explain;
use crate::rooms::fleet::{Cause, Ordered, Orders, Sent};
use async_trait::async_trait;
use domain::{
    Error,
    containers::{EngineImage, Engines, ImageName, wire::ListedImage},
    fleet::{
        AgentService,
        protocol::{ImageQuery, StreamSource},
    },
    ids::ServerId,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::de::DeserializeOwned;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};

/// How long an engine may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take to list all that it has.
const LIST_PATIENCE: Duration = Duration::from_secs(20);
/// The most that are asked at once, for one image.
const MOST: usize = 256;
/// The most images of one engine that are told.
const MOST_IMAGES: usize = 5000;
/// How many images are asked about at once, so that agents have places for other streams.
const AT_ONCE: usize = 4;

/// Asks the agents that can be reached.
pub struct AskedEngines {
    agents: Arc<AgentService>,
    orders: Orders,
    turns: Semaphore,
}

impl AskedEngines {
    /// Asks these agents.
    #[must_use]
    pub fn new(agents: Arc<AgentService>, orders: Orders) -> Self {
        Self { agents, orders, turns: Semaphore::new(AT_ONCE) }
    }

    async fn ask(&self, server: ServerId, name: &ImageName) -> Option<(ServerId, EngineImage)> {
        let source = StreamSource::Image(ImageQuery { name: name.clone() });
        let ordered = self.orders.order(&self.agents, server, source);
        let image = timeout(PATIENCE, answer(ordered)).await.ok()??;
        Some((server, image))
    }
}

/// The only message of a stream, if there is one.
async fn answer<T: DeserializeOwned>(mut ordered: Ordered) -> Option<T> {
    match message(&mut ordered).await {
        Ok(text) => serde_json::from_str(&text?).ok(),
        Err(_cause) => None,
    }
}

/// The next message of a stream; nothing, if it ends before.
async fn message(ordered: &mut Ordered) -> Result<Option<String>, Cause> {
    loop {
        match ordered.next().await {
            None | Some(Sent::End(None)) => return Ok(None),
            Some(Sent::Opened | Sent::Binary(_)) => {}
            Some(Sent::Message(text)) => return Ok(Some(text)),
            Some(Sent::End(Some(cause))) => return Err(cause),
        }
    }
}

#[async_trait]
impl Engines for AskedEngines {
    async fn look_up(&self, name: &ImageName) -> Vec<(ServerId, EngineImage)> {
        let _turn = self.turns.acquire().await;
        let asked: FuturesUnordered<_> =
            self.agents.there().into_iter().take(MOST).map(|server| self.ask(server, name)).collect();
        let mut found: Vec<_> = asked.filter_map(async |answer| answer).collect().await;
        found.sort_unstable_by_key(|(server, _)| *server);
        found
    }

    async fn images(&self, server: ServerId) -> domain::Result<Vec<ListedImage>> {
        let unavailable = |reason: String| Error::Unavailable { reason, source: None };
        let mut ordered = self.orders.order(&self.agents, server, StreamSource::Images);
        let told = match timeout(LIST_PATIENCE, message(&mut ordered)).await {
            Err(_) | Ok(Ok(None)) => {
                let reason = format!("the agent of server {server} did not list its images in time; try again");
                return Err(unavailable(reason));
            }
            Ok(Ok(Some(told))) => told,
            Ok(Err(cause)) => {
                let reason = explain(server, &cause).reason;
                return Err(unavailable(format!("the images of server {server} cannot be listed: {reason}")));
            }
        };
        let images = serde_json::from_str::<Vec<ListedImage>>(&told).map_err(|error| {
            let reason =
                format!("the agent of server {server} listed its images in a way that cannot be read; renew it");
            Error::unavailable(reason, error)
        })?;
        Ok(images.into_iter().filter_map(ListedImage::sane).take(MOST_IMAGES).collect())
    }
}
