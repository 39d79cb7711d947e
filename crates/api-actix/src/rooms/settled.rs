//! Waiting for what goes on after a request.

use crate::ApiError;
use domain::audit::Head;
use std::time::Duration;
use tokio::{sync::watch, time::timeout};

/// How often to look for what other processes did.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is found by looking again, beginning with `found`, once it is no longer under way, or when that has lasted for
/// `patience`. Whatever is committed wakes it; `changes` has to be from before what was asked for.
///
/// # Errors
/// What looking fails with.
pub(super) async fn settled<T>(
    patience: Duration,
    mut changes: watch::Receiver<Head>,
    found: T,
    is_underway: impl Fn(&T) -> bool,
    look: impl AsyncFn() -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let mut newest = found;
    if patience.is_zero() {
        return Ok(newest);
    }
    let waiting = async {
        while is_underway(&newest) {
            // Another process of this database may be the one that hears of the end.
            if timeout(LOOK_AGAIN, changes.changed()).await.is_ok_and(|told| told.is_err()) {
                break;
            }
            newest = look().await?;
        }
        Ok::<(), ApiError>(())
    };
    timeout(patience, waiting).await.unwrap_or(Ok(()))?;
    Ok(newest)
}
