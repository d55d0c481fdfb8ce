//! Behaviours of membership: many members on a bad network.

mod broken;
mod net;
mod random;

use super::*;
use net::{Net, Weather, id, ms};

#[test]
fn a_router_alone_is_in_a_view_of_its_own() {
    let net = Net::new(1, 1, Weather::CLEAR);
    net.expect_views();
    assert_eq!(net.member(0).poll_timeout(), None, "and it has nothing to do");
}

#[test]
fn routers_that_meet_are_in_one_view_and_then_are_silent() {
    for count in [2, 3, 7] {
        let mut net = Net::settled(count, 1);
        let settled = net.messages;
        net.run(ms(60_000));
        assert_eq!(net.messages, settled, "{count}");
    }
}
