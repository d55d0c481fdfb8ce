//! SIGHUP: what can change in a running router changes, what cannot is said, what is wrong is refused.

use crate::support::{
    Machine, eventually, json, links, path, rewrite, system_test, wait_answering, without_table, world,
};
use crate::traffic::{carry, noise, stream};
use sinew::client::admin::{Request, Response};
use sinew::lab::conditions::Conditions;
use sinew::lab::world::{Router, Topology};
use std::io::{Read as _, Write as _};

fn hang_up(router: &Router, said: &str) {
    router.signal(libc::SIGHUP);
    eventually(&format!("the log says {said}"), || router.log().contains(said).then_some(()));
}

#[test]
fn members_and_links_change_live() {
    system_test("reload::members_and_links_change_live", Machine::Shared, || {
        let world = world(Topology::chain(2, Conditions::wire(1.0, 0)));
        let (a, b, c) = (world.router("a"), world.router("b"), world.router("c"));
        let full = [a, b].map(|router| std::fs::read_to_string(router.config()).expect("is there"));
        rewrite(a, |text| without_table(&text, "member", "name = \"c\""));
        rewrite(b, |text| without_table(&without_table(&text, "member", "name = \"c\""), "link", "peer = \"c\""));
        a.start().and_then(|()| b.start()).and_then(|()| c.start()).expect("start");
        [a, b, c].into_iter().for_each(wait_answering);
        eventually("a reaches b", || path(a, "b"));
        assert_eq!((links(b).len(), path(a, "c")), (1, None));
        let (mut near, mut far, _listener) = stream(a, b, 8000);

        for (router, text) in [a, b].into_iter().zip(&full) {
            std::fs::write(router.config(), text).expect("is written");
            hang_up(router, "member `c` added");
        }
        eventually("the log says so", || b.log().contains("link to `c` added").then_some(()));
        eventually("a reaches c", || path(a, "c"));
        eventually("c reaches a", || path(c, "a"));
        carry(a, c, 8001, &noise(1, 100_000));

        // What was bound at the start stays as it is, and that is said.
        rewrite(b, |text| {
            text.replace("count = 1", "count = 1\npool = 4096").replace("peer = \"c\"", "peer = \"c\"\nqueue = 100")
        });
        match b.overlay().and_then(|overlay| overlay.request(&Request::Reload)).expect("answers") {
            Response::Reloaded { applied, not_applied } => {
                assert!(applied.iter().any(|line| line.contains("link to `c` restarts")), "{applied:?}");
                assert!(not_applied.iter().any(|line| line.contains("`workers`")), "{not_applied:?}");
            }
            other => panic!("{other:?}"),
        }
        hang_up(b, "`workers` takes effect at the next start");
        assert_eq!(json(b, "show stats --json")["workers"].as_array().map(Vec::len), Some(1));

        // A broken file changes nothing.
        rewrite(b, |_| "name = 5\n[[link]\n".to_owned());
        hang_up(b, "nothing was changed");
        let refused = b.overlay().and_then(|overlay| overlay.request(&Request::Reload)).expect("answers");
        assert!(matches!(&refused, Response::Error { message } if message.contains(":1:8")), "{refused:?}");
        assert_eq!(links(b).len(), 2);
        eventually("c is reached by its restarted link", || path(a, "c"));
        carry(c, a, 8002, &noise(2, 100_000));

        // A member less.
        std::fs::write(b.config(), &full[1]).expect("is written");
        rewrite(b, |text| without_table(&without_table(&text, "member", "name = \"c\""), "link", "peer = \"c\""));
        hang_up(b, "link to `c` removed");
        eventually("c is no longer reached", || path(a, "c").is_none().then_some(()));

        // All the while the stream between the others lived.
        near.write_all(b"still here").expect("is taken");
        let mut text = [0; 10];
        far.read_exact(&mut text).expect("arrives");
        assert_eq!(&text, b"still here");
    });
}
