//! A route that may be lost while a command needs it.

use super::output::note;
use super::router::Router;
use crate::base::NodeId;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often the router is asked whether there is a route.
const LOOK: Duration = Duration::from_millis(500);

/// Works, and says meanwhile when no route leads to `node` any more, why, and what becomes of the work; and when one does
/// again. A thread of its own looks: the work may wait for its input, or for the other end.
pub(super) fn watched<T>(router: &Router, node: NodeId, meanwhile: &str, work: impl FnOnce() -> T) -> T {
    let (end, ended) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| watch(router, node, meanwhile, ended));
        let done = work();
        drop(end);
        done
    })
}

/// Looks until the other end of `ended` is dropped.
fn watch(router: &Router, node: NodeId, meanwhile: &str, ended: Receiver<()>) {
    let mut lost: Option<Instant> = None;
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        // That the router itself is gone, the work will say.
        let Ok(obstacle) = router.obstacle(node) else { return };
        match (obstacle, lost) {
            (Some(why), None) => {
                lost = Some(Instant::now());
                note(format_args!("{why}\n  {meanwhile}"));
            }
            (None, Some(since)) => {
                lost = None;
                let (name, seconds) = (router.name(node), since.elapsed().as_secs_f64());
                note(format_args!("{name} is reached again, after {seconds:.1} s"));
            }
            _ => {}
        }
    }
}
