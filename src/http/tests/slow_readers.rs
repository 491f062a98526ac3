//! Readers of ordinary answers who take little of them, or nothing.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::stream::until;
use crate::{
    config::Config,
    model::ids::PostText,
    testing::{
        http::{Ask, Site},
        stepped_world::SECOND,
    },
};

/// A page of 1 MiB of text.
const PAGE: &str = "/api/v1/boards/lobby/posts?limit=200";
const PAGE_BYTES: usize = 1024 * 1024;

const HERE: &str = "10.0.0.1:1";
const ELSEWHERE: &str = "10.0.0.2:1";

/// Returns a site whose lobby has a page of long posts, and a token.
async fn site_with_a_long_page(config: Config) -> (Site, String) {
    let site = Site::with(config);
    let posts = u8::try_from(PAGE_BYTES / PostText::LEN_MAX).expect("not so many");
    site.fake.state().fill_lobby(posts, &"x".repeat(PostText::LEN_MAX));
    let token = site.join("Ada").await;
    (site, token)
}

/// Asks for the page on a connection with this much room.
async fn ask(site: &Site, token: &str, peer: &str, room: usize) -> DuplexStream {
    let mut stream = site.connect_from(peer, room).await;
    let ask = Ask::new("GET", PAGE).token(token);
    stream.write_all(&ask.bytes(false)).await.expect("written");
    stream
}

#[tokio::test(start_paused = true)]
async fn reader_that_takes_a_few_bytes_now_and_then_is_cut() {
    let (site, token) = site_with_a_long_page(Config::default()).await;
    let mut stream = ask(&site, &token, HERE, 256).await;
    let start = site.env.now();
    let mut few = [0; 100];
    // A reset is an end too.
    while matches!(stream.read(&mut few).await, Ok(1..)) {
        site.env.sleep(SECOND * 5).await;
        assert!(site.env.now().since(start) < SECOND * 60, "it is still served");
    }
    let took = site.env.now().since(start);
    assert!(took >= SECOND * 30, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn reader_on_a_slow_line_gets_all_of_a_long_page() {
    let (site, token) = site_with_a_long_page(Config::default()).await;
    let mut stream = ask(&site, &token, HERE, 4096).await;
    let start = site.env.now();
    let (mut second, mut taken) = ([0; 4096], 0);
    while taken < PAGE_BYTES {
        stream.read_exact(&mut second).await.expect("more of it");
        taken += second.len();
        site.env.sleep(SECOND).await;
    }
    let took = site.env.now().since(start);
    assert!(took > SECOND * 200, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn address_that_leaves_long_answers_unread_gets_no_more_until_they_are_over() {
    let config = Config { unread_bytes_per_address_max: 2_000_000, ..Config::default() };
    let (site, token) = site_with_a_long_page(config).await;
    let mut unread = Vec::new();
    for _ in 0..2 {
        let mut stream = ask(&site, &token, HERE, 1024).await;
        until(&mut stream, "200 OK").await;
        unread.push(stream);
    }
    let page = || Ask::new("GET", PAGE).token(&token);
    let asked = site.fake.state().messages;
    for path in [PAGE, "/api/v1/users", "/api/v1/boards", "/api/v1/cluster", "/api/v1/session"] {
        let refused = site.send_from(HERE, Ask::new("GET", path).token(&token)).await;
        assert_eq!((refused.status, &*refused.problem()), (429, "rate-limited"), "{path}");
        assert_eq!(refused.header("retry-after"), Some("1"), "{path}");
    }
    assert_eq!(site.fake.state().messages, asked, "nothing was read for them");
    let alive = Ask::new("POST", "/api/v1/session/alive").token(&token);
    assert_eq!(site.send_from(HERE, alive).await.status, 204, "short answers go on");
    let other = site.send_from(ELSEWHERE, page()).await;
    assert_eq!(other.status, 200);
    assert!(other.body.len() > PAGE_BYTES);
    drop(unread);
    site.env.sleep(SECOND).await;
    assert_eq!(site.send_from(HERE, page()).await.status, 200, "there is room again");
}

#[tokio::test(start_paused = true)]
async fn long_answers_to_all_addresses_have_a_bound() {
    let config = Config { unread_bytes_max: 2_000_000, ..Config::default() };
    let (site, token) = site_with_a_long_page(config).await;
    let mut unread = Vec::new();
    for peer in [HERE, ELSEWHERE] {
        let mut stream = ask(&site, &token, peer, 1024).await;
        until(&mut stream, "200 OK").await;
        unread.push(stream);
    }
    let send =
        async |path: &str| site.send_from("10.0.0.3:1", Ask::new("GET", path).token(&token)).await;
    assert_eq!(send(PAGE).await.problem(), "rate-limited");
    let short = "/api/v1/boards/lobby/posts?limit=1";
    assert_eq!(send(short).await.status, 200, "short ones need no room");
}
