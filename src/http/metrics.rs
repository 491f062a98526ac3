//! Counters of the front end, and a master's state as Prometheus text.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::{
    api::ClusterState,
    model::{
        absence::AwayReason, ids::Role, message::MemberState, refusal::Refusal, stream::Consistency,
    },
};

type Labels = Vec<(&'static str, String)>;

/// Counters of one front end. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    answers: Family<Labels, Counter<u64, AtomicU64>>,
    connections: Gauge<i64, AtomicI64>,
    connections_max: Gauge<i64, AtomicI64>,
    refused: Counter<u64, AtomicU64>,
    broken: Family<Labels, Counter<u64, AtomicU64>>,
    operators_refused: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// Returns counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn answered(&self, method: &str, route: &str, status: u16) {
        let labels = vec![
            ("method", method.to_owned()),
            ("route", route.to_owned()),
            ("status", status.to_string()),
        ];
        self.0.answers.get_or_create(&labels).inc();
    }

    pub(super) fn connection_opened(&self) {
        self.0.connections.inc();
    }

    pub(super) fn set_connections_max(&self, connections_max: usize) {
        self.0.connections_max.set(connections_max.try_into().unwrap_or(i64::MAX));
    }

    pub(super) fn connection_closed(&self) {
        self.0.connections.dec();
    }

    pub(super) fn connection_refused(&self) {
        self.0.refused.inc();
    }

    /// Counts a connection that broke, in its TLS handshake or later.
    pub(super) fn connection_broken(&self, in_tls: bool) {
        let part = if in_tls { "tls" } else { "http" };
        self.0.broken.get_or_create(&vec![("part", part.to_owned())]).inc();
    }

    /// Counts a request to the operators' listener without the right token.
    pub(super) fn operator_refused(&self) {
        self.0.operators_refused.inc();
    }

    /// Formats all counters, the lines that were lost and the master's state for `/metrics`.
    ///
    /// # Errors
    /// None that a `String` can cause.
    pub(super) fn text(&self, view: &ClusterState, lost: u64) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("chatchat");
        let counted = &self.0;
        registry.register("http_answers", "Answers by route and status", counted.answers.clone());
        let open = counted.connections.clone();
        registry.register("http_connections", "Open connections of people", open);
        let bound = counted.connections_max.clone();
        registry.register("http_connections_max", "Bound on the open connections", bound);
        let refused = counted.refused.clone();
        registry.register("http_connections_refused", "Connections over a cap", refused);
        let broken = counted.broken.clone();
        registry.register(
            "http_connections_broken",
            "Connections that broke off, broke a rule or missed a deadline",
            broken,
        );
        let refused = counted.operators_refused.clone();
        registry.register(
            "operators_refused",
            "Requests for operators without the admin token",
            refused,
        );
        let lines = Counter::<u64, AtomicU64>::default();
        lines.inc_by(lost);
        registry.register("lines_lost", "Event and log lines that could not be written", lines);
        register_view(&mut registry, view);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

fn register_view(registry: &mut Registry, view: &ClusterState) {
    let mut one = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<i64, AtomicI64>::default();
        gauge.set(value.try_into().unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    one("streams", "Open streams of people", view.streams as u64);
    one("store_reachable", "Whether the shared store answers", {
        u64::from(view.store == Consistency::Strong)
    });
    one("store_epoch", "The shared store's epoch", view.store_epoch.0);
    one("key_epoch", "The common key's number", view.key_epoch.0);
    one("key_age_seconds", "Age of the common key in use", view.keys.age_ms / 1000);
    one(
        "key_members_lacking",
        "Workers that do not hold the newest common key yet",
        view.keys.lacking.len() as u64,
    );
    one("incarnation", "This life of the master", view.domain.incarnation.0);
    one("failed_workers", "Workers in the failed list", view.failed.len() as u64);

    let mut count = |name: &str, help: &str, value: u64| {
        let counter = Counter::<u64, AtomicU64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    count("key_refreshes", "Refreshes of the common key", view.keys.refreshes);
    count("key_alarms", "Second keys that workers were sent for one epoch", view.keys.alarms);

    let away = Family::<Labels, Gauge<i64, AtomicI64>>::default();
    let absences = Family::<Labels, Counter<u64, AtomicU64>>::default();
    for reason in AwayReason::ALL {
        let labels = vec![("reason", reason.name().to_owned())];
        let is_now = view.store_away.as_ref().is_some_and(|away| away.reason == reason);
        away.get_or_create(&labels).set(is_now.into());
        let times = view.store_absences.iter().find(|(of, _)| *of == reason);
        absences.get_or_create(&labels).inc_by(times.map_or(0, |(_, times)| *times));
    }
    registry.register("store_away", "Whether the shared store is away, by reason", away);
    registry.register("store_absences", "How often the shared store went, by reason", absences);

    let refusals = Family::<Labels, Counter<u64, AtomicU64>>::default();
    for kind in Refusal::ALL {
        let times = view.refusals.iter().find(|(of, _)| *of == kind).map_or(0, |(_, times)| *times);
        refusals.get_or_create(&vec![("reason", kind.name().to_owned())]).inc_by(times);
    }
    registry.register(
        "link_refusals",
        "What strangers and faulty nodes were refused on the nodes' port",
        refusals,
    );

    let nodes = Family::<Labels, Gauge<i64, AtomicI64>>::default();
    for node in &view.nodes {
        let state = match node.state {
            MemberState::In => "in",
            MemberState::Failed => "failed",
            MemberState::Left => "left",
        };
        let labels = vec![("role", node.role.to_string()), ("state", state.to_owned())];
        nodes.get_or_create(&labels).inc();
    }
    registry.register("nodes", "Nodes in the directory", nodes);

    let in_flight = Family::<Labels, Gauge<i64, AtomicI64>>::default();
    for worker in view.nodes.iter().filter(|node| node.role == Role::Worker) {
        let labels = vec![("worker", worker.name.clone()), ("id", worker.id.short())];
        in_flight.get_or_create(&labels).set(worker.in_flight.into());
    }
    registry.register("worker_in_flight", "Batches a worker is writing", in_flight);

    let held = Family::<Labels, Gauge<i64, AtomicI64>>::default();
    for worker in view.nodes.iter().filter(|node| node.role == Role::Worker) {
        let labels = vec![("worker", worker.name.clone()), ("id", worker.id.short())];
        held.get_or_create(&labels).set(worker.held_posts.into());
    }
    registry.register(
        "worker_held_posts",
        "Posts on a worker's disk that wait for the store",
        held,
    );

    let waiting = Family::<Labels, Gauge<i64, AtomicI64>>::default();
    // By kind, not by name: people choose the names of boards.
    for kind in ["board", "sessions"] {
        waiting.get_or_create(&vec![("resource", kind.to_owned())]).set(0);
    }
    for queue in &view.queues {
        let kind = queue.resource.split(':').next().unwrap_or_default();
        let labels = vec![("resource", kind.to_owned())];
        waiting.get_or_create(&labels).inc_by(queue.waiting.try_into().unwrap_or(i64::MAX));
    }
    let unit = Unit::Other("tasks".to_owned());
    registry.register_with_unit(
        "queue_waiting",
        "Tasks waiting by kind of resource",
        unit,
        waiting,
    );
}
