//! Limits on what one session, or one address, may ask for.

use tokio::io::AsyncWriteExt;

use crate::{
    model::outcome::Outcome,
    testing::{
        http::{Answer, Ask, Site, fake::Silent},
        stepped_world::SECOND,
    },
};

const HERE: &str = "10.0.0.1:1";
const ELSEWHERE: &str = "10.0.0.2:1";

/// Returns one of many tokens of sessions that never were.
fn made_up(n: usize) -> String {
    format!("{n:042}A")
}

async fn list_boards(site: &Site, peer: &str, token: &str) -> Answer {
    site.send_from(peer, Ask::new("GET", "/api/v1/boards").token(token)).await
}

async fn create(site: &Site, peer: &str, token: &str, board: &str) -> Answer {
    let path = format!("/api/v1/boards/{board}");
    site.send_from(peer, Ask::new("PUT", &path).token(token)).await
}

/// Creates boards until one is refused. Returns how many were created, and the refusal.
async fn create_all(site: &Site, peer: &str, token: &str, prefix: &str) -> (usize, Answer) {
    for made in 0..1000 {
        let answer = create(site, peer, token, &format!("{prefix}{made}")).await;
        if answer.status != 201 {
            return (made, answer);
        }
        // A session has a rate of requests as well.
        site.env.sleep(SECOND / 100).await;
    }
    panic!("all of them");
}

#[tokio::test(start_paused = true)]
async fn session_may_not_create_boards_without_end() {
    let site = Site::new();
    let ada = site.join("Ada").await;
    let (made, refused) = create_all(&site, HERE, &ada, "b").await;
    assert_eq!((refused.status, &*refused.problem()), (429, "too-many-boards"));
    assert_eq!(made, 300);
    assert_eq!(create(&site, HERE, &ada, "b0").await.status, 200, "what is there costs nothing");
    assert_eq!(create(&site, ELSEWHERE, &ada, "c0").await.problem(), "too-many-boards");
    let bob = site.join("Bob").await;
    let (made, _) = create_all(&site, ELSEWHERE, &bob, "d").await;
    assert_eq!(made, 300, "a refusal takes nothing from others of the address");
}

#[tokio::test(start_paused = true)]
async fn sessions_of_one_address_may_not_create_boards_without_end() {
    let site = Site::new();
    let (ada, bob) = (site.join("Ada").await, site.join("Bob").await);
    assert_eq!(create_all(&site, HERE, &ada, "b").await.0, 300);
    let refused = create(&site, HERE, &bob, "c0").await;
    assert_eq!((refused.status, &*refused.problem()), (429, "too-many-boards"));
    assert_eq!(create(&site, HERE, &bob, "b0").await.status, 200, "what is there costs nothing");
    assert_eq!(create(&site, ELSEWHERE, &bob, "c0").await.status, 201);
    site.env.sleep(SECOND * 120).await;
    assert_eq!(create(&site, HERE, &bob, "c1").await.status, 201, "one more after two minutes");
}

#[tokio::test(start_paused = true)]
async fn boards_that_could_not_be_created_cost_nothing() {
    let site = Site::new();
    let (ada, bob) = (site.join("Ada").await, site.join("Bob").await);
    for n in 0..310 {
        site.fake.state().outcome = Some(Outcome::Unavailable { retry_ms: 1000 });
        assert_eq!(create(&site, HERE, &ada, &format!("b{n}")).await.status, 503, "{n}");
        site.env.sleep(SECOND / 100).await;
    }
    assert_eq!(create(&site, HERE, &ada, "b").await.status, 201);
    assert_eq!(create(&site, HERE, &bob, "c").await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn made_up_tokens_of_one_address_come_to_an_end_and_known_sessions_go_on() {
    let site = Site::new();
    let ada = site.join("Ada").await;
    for n in 0..200 {
        assert_eq!(list_boards(&site, HERE, &made_up(n)).await.status, 401);
    }
    let asked = site.fake.state().messages;
    let refused = list_boards(&site, HERE, &made_up(200)).await;
    assert_eq!((refused.status, &*refused.problem()), (429, "rate-limited"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(site.fake.state().messages, asked, "the master is not asked");
    assert_eq!(list_boards(&site, HERE, &ada).await.status, 200);
    assert_eq!(list_boards(&site, ELSEWHERE, &made_up(201)).await.status, 401);
    let gone = site.send_from(HERE, Ask::new("DELETE", "/api/v1/session").token(&ada)).await;
    assert_eq!(gone.status, 204);
    assert_eq!(list_boards(&site, HERE, &ada).await.status, 401, "its end is heard of");
    assert_eq!(list_boards(&site, HERE, &ada).await.status, 429, "then it is no better");
    site.env.sleep(SECOND).await;
    assert_eq!(list_boards(&site, HERE, &made_up(202)).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn made_up_tokens_of_a_silent_store_leave_places_to_other_addresses() {
    // The front end knows only the newest session.
    let config = crate::config::Config { sessions_cached_max: 1, ..Default::default() };
    let site = Site::with(config);
    let ada = site.join("Ada").await;
    site.join("Bob").await;
    site.fake.state().silent = Silent::All;
    let asked = site.fake.state().messages;
    let mut open = Vec::new();
    for n in 0..300 {
        let mut stream = site.connect_from(HERE, 4096).await;
        let ask = Ask::new("GET", "/api/v1/boards").token(&made_up(n));
        stream.write_all(&ask.bytes(true)).await.expect("written");
        open.push(stream);
    }
    site.env.sleep(SECOND / 100).await;
    assert_eq!(site.fake.state().messages - asked, 200, "the others wait for nothing");
    site.fake.state().silent = Silent::Nothing;
    assert_eq!(list_boards(&site, ELSEWHERE, &ada).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn session_that_is_found_costs_its_address_nothing() {
    let config = crate::config::Config { sessions_cached_max: 1, ..Default::default() };
    let site = Site::with(config);
    let tokens = [site.join("Ada").await, site.join("Bob").await];
    // Each has been forgotten when it asks again.
    for n in 0..600 {
        assert_eq!(list_boards(&site, HERE, &tokens[n % 2]).await.status, 200, "{n}");
        site.env.sleep(SECOND / 200).await;
    }
}
