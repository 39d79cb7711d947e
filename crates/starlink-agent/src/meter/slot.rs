use super::Gauge;
use domain::observability::Readings;
use std::time::Duration;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

/// A gauge, or the call of it that has not returned yet: what hangs, as a file system of a server that is away does, must
/// keep no other gauge waiting, nor be called once more meanwhile.
pub(super) enum Slot {
    Idle(Gauge),
    UnderWay(JoinHandle<(Gauge, Readings)>),
    /// The gauge has failed, and was lost with it.
    Broken,
}

impl Slot {
    pub(super) fn new(gauge: Gauge) -> Self {
        Self::Idle(gauge)
    }

    /// What the gauge shows, unless it takes longer than that.
    pub(super) async fn read(&mut self, patience: Duration) -> Readings {
        let (mut call, was_late) = match std::mem::replace(self, Self::Broken) {
            Self::Idle(mut gauge) => {
                let work = move || {
                    let readings = gauge();
                    (gauge, readings)
                };
                (spawn_blocking(work), false)
            }
            Self::UnderWay(call) => (call, true),
            Self::Broken => return Readings::default(),
        };
        match timeout(patience, &mut call).await {
            // What comes late is of a time that is over.
            Ok(Ok((gauge, readings))) => {
                *self = Self::Idle(gauge);
                if was_late { Readings::default() } else { readings }
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a part of the machine is not measured any more");
                Readings::default()
            }
            Err(_late) => {
                if !was_late {
                    tracing::warn!("a part of the machine cannot be measured at the moment: it does not answer");
                }
                *self = Self::UnderWay(call);
                Readings::default()
            }
        }
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
