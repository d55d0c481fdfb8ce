//! What every metric is of, in a line.

/// The HELP text of a metric.
pub(super) fn of(name: &str) -> String {
    let known = TEXTS.binary_search_by_key(&name, |(known, _)| known).map(|place| TEXTS[place].1);
    known.map_or_else(|_| format!("See `{}` in `sinew show stats --all`.", plain(name)), str::to_owned)
}

/// A metric's name among the statistics.
fn plain(name: &str) -> &str {
    let name = name.strip_prefix("sinew_link_").or(name.strip_prefix("sinew_")).unwrap_or(name);
    name.strip_suffix("_total").unwrap_or(name)
}

/// By name.
const TEXTS: &[(&str, &str)] = &[
    ("sinew_build_info", "The version of the router, as a label; always 1."),
    ("sinew_bytes_in_total", "Bytes (UDP payload) received from the network."),
    ("sinew_bytes_out_total", "Bytes (UDP payload) sent to the network."),
    ("sinew_control_refused_messages_total", "Control messages of unknown protocols, or over links that are gone."),
    ("sinew_datagram_drops_total", "Datagrams dropped when they arrived, by reason."),
    ("sinew_datagrams_in_total", "Datagrams received from the network."),
    ("sinew_datagrams_out_total", "Datagrams sent to the network."),
    ("sinew_delivered_total", "Messages delivered to sessions of this router."),
    ("sinew_driver_calls_total", "System calls that may have carried packets."),
    ("sinew_driver_coupled_in_total", "Datagrams that arrived in trains."),
    ("sinew_driver_coupled_out_total", "Datagrams that left in trains."),
    ("sinew_driver_receive_batches_total", "Passes that found datagrams."),
    ("sinew_driver_refusals_total", "Times the kernel said that nothing listens at a neighbour's address."),
    ("sinew_driver_send_batches_total", "Batches of datagrams sent."),
    ("sinew_driver_send_errors_total", "Datagrams that the kernel refused to send, by its reason."),
    ("sinew_driver_socket_overflows_total", "Datagrams the kernel dropped because a socket's receive buffer was full."),
    ("sinew_driver_trains_in_total", "Trains of two or more datagrams that arrived as one."),
    ("sinew_driver_trains_out_total", "Trains of two or more datagrams that left as one."),
    ("sinew_driver_turns_total", "Turns of the worker's loop."),
    ("sinew_driver_waits_total", "Turns that waited in the kernel."),
    ("sinew_drops_total", "Datagrams and messages dropped, by reason."),
    ("sinew_forwarded_total", "Messages forwarded from one link to another."),
    ("sinew_handed_total", "Messages handed to links."),
    ("sinew_handshakes_total", "Datagrams of handshakes."),
    ("sinew_link_accepted_total", "Overlay messages taken in for sending."),
    ("sinew_link_acks_in_total", "Acknowledgements received."),
    ("sinew_link_acks_out_total", "Acknowledgements sent."),
    ("sinew_link_advertised_jitter_seconds", "Variation of the round trip, as routing goes by it."),
    ("sinew_link_advertised_loss_ratio", "Share of datagrams lost on the way here, as routing goes by it."),
    ("sinew_link_advertised_rtt_seconds", "Round trip, as routing goes by it."),
    ("sinew_link_bytes_in_total", "Bytes (UDP payload) received over the link."),
    ("sinew_link_bytes_out_total", "Bytes (UDP payload) sent over the link."),
    ("sinew_link_clock_error_seconds", "By how much the difference of clocks and one-way delays may be wrong."),
    ("sinew_link_downs_total", "Times the link went down."),
    ("sinew_link_drops_total", "Messages dropped by the link, by reason."),
    ("sinew_link_in_flight_bytes", "Bytes sent and not confirmed yet."),
    ("sinew_link_marked_total", "Reliable messages marked because the queue is persistently long."),
    ("sinew_link_message_bytes_received_total", "Bytes of the messages received, by class."),
    ("sinew_link_message_bytes_sent_total", "Bytes of the messages sent for the first time, by class."),
    ("sinew_link_messages_received_total", "Messages received and handed on, without repetitions, by class."),
    ("sinew_link_messages_sent_total", "Messages sent for the first time, by class."),
    ("sinew_link_moves_total", "Times the link went on by another path."),
    ("sinew_link_needless_retransmissions_total", "Repetitions of messages whose earlier copy had arrived."),
    ("sinew_link_one_way_latest_seconds", "Smoothed way from the neighbour to here, right within the clock error."),
    ("sinew_link_pacing_rate_bytes_per_second", "Rate at which the link may send now."),
    ("sinew_link_packets_in_total", "Sealed packets received."),
    ("sinew_link_packets_lost_total", "Packets given up as lost."),
    ("sinew_link_packets_out_total", "Sealed packets sent."),
    ("sinew_link_path_active", "Whether the link sends by the path: 1, or 0."),
    ("sinew_link_path_listed", "Whether the path is in the configuration: 1, or 0."),
    ("sinew_link_path_loss_ratio", "Share of packets lost on the path."),
    ("sinew_link_path_rtt_seconds", "Smoothed round trip of the path's hellos."),
    ("sinew_link_path_since_seconds", "Time since the path came up or went down."),
    ("sinew_link_path_up", "Whether both ends hear each other on the path: 1, or 0."),
    ("sinew_link_pmtu_bytes", "Largest datagram that the path is known to carry."),
    ("sinew_link_queue", "Messages waiting to be sent."),
    ("sinew_link_queue_peak", "Most messages that ever waited at a time."),
    ("sinew_link_retransmissions_total", "Times a reliable or control message was sent again."),
    ("sinew_link_rtt_min_seconds", "Smallest round trip of the last seconds."),
    ("sinew_link_rtt_seconds", "Smoothed round trip."),
    ("sinew_link_rtt_variation_seconds", "Mean deviation of the round trip."),
    ("sinew_link_since_seconds", "Time since the link came up or went down."),
    ("sinew_link_timeout_seconds", "How long an unanswered packet is waited for."),
    ("sinew_link_unacknowledged", "Reliable messages sent and not confirmed yet."),
    ("sinew_link_up", "Whether the link carries traffic: 1, or 0."),
    ("sinew_link_ups_total", "Times the link came up."),
    ("sinew_link_window_bytes", "Congestion window."),
    ("sinew_message_drops_total", "Messages dropped on their way through this router, by reason."),
    ("sinew_opened_total", "Datagrams that were opened and handed to their link."),
    ("sinew_originated_total", "Messages that came from sessions of this router."),
    ("sinew_pool_peak", "Most slots of the packet pool ever in use."),
    ("sinew_pool_slots", "Slots of the packet pool."),
    ("sinew_pool_used", "Slots of the packet pool in use."),
    ("sinew_received_total", "Messages that links took in from neighbours."),
    ("sinew_returned_total", "Messages that came back from links that went down."),
    ("sinew_security_drops_total", "Datagrams that security dropped, by reason."),
    ("sinew_security_established_total", "Links that began a new life under new keys."),
    ("sinew_security_opened_total", "Packets opened."),
    ("sinew_security_rekeyed_total", "Changes of keys within the life of a link."),
    ("sinew_security_sealed_total", "Packets sealed."),
    ("sinew_stranded", "Messages that wait for a route."),
    ("sinew_strays_total", "Datagrams for links that were removed a moment ago."),
];

#[test]
fn the_texts_are_in_order_so_that_they_are_found() {
    assert!(TEXTS.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(of("sinew_link_up"), "Whether the link carries traffic: 1, or 0.");
    assert_eq!(of("sinew_link_future_total"), "See `future` in `sinew show stats --all`.");
}
