use super::Gauge;
use domain::observability::Readings;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// A gauge, and the call of it that has not returned yet: what hangs, as a file system of a server that is away does,
/// must keep no other gauge waiting, nor be called once more meanwhile. Each call has a thread of its own, so that one
/// that hangs does not keep the process from ending, as it would in the runtime's hands.
pub(super) struct Slot {
    gauge: Arc<Mutex<Gauge>>,
    under_way: Option<oneshot::Receiver<Readings>>,
    has_failed: bool,
}

impl Slot {
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { gauge: Arc::new(Mutex::new(gauge)), under_way: None, has_failed: false }
    }

    /// What the gauge shows, unless it takes longer than that.
    pub(super) async fn read(&mut self, patience: Duration) -> Readings {
        let nothing = Readings::default();
        let (mut call, was_late) = match self.under_way.take() {
            Some(call) => (call, true),
            None if self.has_failed => return nothing,
            None => match self.call() {
                Ok(call) => (call, false),
                Err(error) => {
                    tracing::debug!(%error, "there is no thread to measure with");
                    return nothing;
                }
            },
        };
        match timeout(patience, &mut call).await {
            // What comes late is of a time that is over.
            Ok(Ok(readings)) => return if was_late { nothing } else { readings },
            Ok(Err(_panicked)) => {
                self.has_failed = true;
                tracing::error!("a part of the machine is not measured any more: its gauge has panicked");
            }
            Err(_late) => {
                if !was_late {
                    tracing::warn!("a part of the machine cannot be measured at the moment: it does not answer");
                }
                self.under_way = Some(call);
            }
        }
        nothing
    }

    fn call(&self) -> io::Result<oneshot::Receiver<Readings>> {
        let (sender, receiver) = oneshot::channel();
        let gauge = self.gauge.clone();
        let work = move || {
            let mut gauge = gauge.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever asked may be gone.
            sender.send(gauge()).ok();
        };
        thread::Builder::new().name("gauge".to_owned()).spawn(work)?;
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::observability::Metric;
    use std::sync::mpsc;

    fn load(value: f64) -> Readings {
        Readings::default().with(Metric::NodeLoad1, value)
    }

    #[tokio::test]
    async fn what_hangs_is_called_once_and_goes_on_when_it_answers() {
        let (answer, answers) = mpsc::channel();
        let mut slot = Slot::new(Box::new(move || load(answers.recv().unwrap())));
        for _ in 0..3 {
            assert!(slot.read(Duration::from_millis(1)).await.is_empty());
        }
        let long = Duration::from_secs(10);
        answer.send(1.0).unwrap();
        // It is of a time that is over.
        assert!(slot.read(long).await.is_empty());
        answer.send(2.0).unwrap();
        assert_eq!(slot.read(long).await, load(2.0));
    }

    #[tokio::test]
    async fn one_that_fails_is_not_called_again() {
        let mut slot = Slot::new(Box::new(|| panic!("a fault of a gauge")));
        for _ in 0..2 {
            assert!(slot.read(Duration::from_secs(10)).await.is_empty());
        }
    }
}
