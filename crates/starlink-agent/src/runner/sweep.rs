use super::{drivers::Slot, shared::Shared};
use crate::{session::Backoff, work::Failure};
use std::{sync::Arc, time::Duration};

/// Looks for orphans of a driver, now and then, until the agent stops.
pub(super) async fn forever(shared: Arc<Shared>, slot: Arc<Slot>) {
    let mut backoff = Backoff::new(shared.periods.patience);
    loop {
        let rest = tokio::select! {
            swept = sweep(&shared, &slot) => match swept {
                Ok(()) => {
                    backoff = Backoff::new(shared.periods.patience);
                    shared.periods.sweep
                }
                Err(failure) => {
                    tracing::debug!("orphans cannot be looked for: {failure}");
                    backoff.next()
                }
            },
            () = shared.stopping() => return,
        };
        // Even if it failed: a driver that finds nothing starts nothing either, and the other one must not wait for it.
        slot.mark_swept();
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = shared.stopping() => return,
        }
    }
}

async fn sweep(shared: &Shared, slot: &Slot) -> Result<(), Failure> {
    let found = slot.find(&shared.installation, shared.periods.find).await?;
    for id in found {
        if id.installation == shared.installation && shared.is_orphan(&id) {
            tracing::warn!("{id} was found, and belongs to no operation of this agent: it is ended and removed");
            let work = shared.nameless(id);
            slot.driver.stop(&work, Duration::ZERO).await?;
            slot.driver.remove(&work).await?;
        }
    }
    Ok(())
}
