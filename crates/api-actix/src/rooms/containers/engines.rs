//! What container engines have, asked of the agents beside them.

use crate::rooms::fleet::{Ordered, Orders, Sent};
use async_trait::async_trait;
use domain::{
    containers::{EngineImage, Engines, ImageName},
    fleet::{
        AgentService,
        protocol::{ImageQuery, StreamSource},
    },
    ids::ServerId,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};

/// How long an engine may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most that are asked at once, for one image.
const MOST: usize = 256;
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
async fn answer(mut ordered: Ordered) -> Option<EngineImage> {
    loop {
        match ordered.next().await? {
            Sent::Opened => {}
            Sent::Message(text) => return serde_json::from_str(&text).ok(),
            Sent::End(_) => return None,
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
}
