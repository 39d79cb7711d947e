use super::*;
use std::rc::Rc;
use tokio::task::LocalSet;

/// So many parts, and something that is held as long as they are.
struct Held {
    left: u32,
    _held: Rc<()>,
}

impl Parts for Held {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        Ok(Some(Bytes::from_static(b"part")))
    }
}

fn held(left: u32) -> (impl Stream<Item = Result<Bytes>>, Rc<()>) {
    let held = Rc::new(());
    (parts(Held { left, _held: held.clone() }), held)
}

#[tokio::test(start_paused = true)]
async fn who_reads_nothing_for_a_minute_holds_nothing_any_more() {
    let work = async {
        let (stream, held) = held(100);
        let mut stream = Box::pin(stream);
        for _ in 0..3 {
            assert!(stream.next().await.unwrap().is_ok());
            tokio::time::sleep(Duration::from_secs(59)).await;
            assert_eq!(Rc::strong_count(&held), 2);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(Rc::strong_count(&held), 1);
        // What lies between was sent, and then it breaks off rather than look complete.
        assert!(stream.next().await.unwrap().is_ok());
        assert!(matches!(stream.next().await.unwrap(), Err(Error::Unavailable { .. })));
        assert!(stream.next().await.is_none());
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test(start_paused = true)]
async fn parts_come_to_their_end_and_are_dropped_with_whoever_reads() {
    let work = async {
        let (stream, _held) = held(10);
        assert_eq!(stream.filter(|part| ready(part.is_ok())).count().await, 10);
        let (stream, held) = held(10);
        drop(stream);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(Rc::strong_count(&held), 1);
    };
    LocalSet::new().run_until(work).await;
}
