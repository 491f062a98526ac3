//! Posts a line to a board and follows the board, over whatever masters are alive.
//!
//! ```text
//! cargo run --bin chatchat-cluster                      # in another shell; it prints the URLs
//! cargo run --example post_and_follow -- http://127.0.0.1:8080 http://127.0.0.1:8081
//! ```
//!
//! Kill the master that the program follows: it moves on to another one, resumes at its cursor
//! and shows no post twice. Ctrl-C ends it.

use std::{error::Error, sync::Arc, time::Duration};

use chatchat::{
    api::StreamEvent,
    client::{ChatClient, FollowEvent, Limits, MasterList, NoObserver},
    env::{Env, real::RealWorld},
    model::ids::{BoardName, PostText, UserName},
};

/// Time for which opening a session is tried.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // One URL is enough: a master tells the client about all others.
    let mut masters: Vec<String> = std::env::args().skip(1).collect();
    if masters.is_empty() {
        masters.push("http://127.0.0.1:8080".to_owned());
    }
    // The client runs over the seam; here that is the real network and clock.
    let env = Env::new(RealWorld::temporary()?);
    let masters = MasterList::new(&masters, 0).ok_or("name a master")?;
    let client = ChatClient::new(&env, masters, None, Limits::default(), Arc::new(NoObserver));

    let name: UserName = "example".parse()?;
    let session = client.open_session(name, PATIENCE).await?;
    println!("session of {} at {}", session.user.name.as_str(), client.master());

    // The same id makes one post, however often and through whichever masters it is sent.
    let board = BoardName::lobby();
    let text: PostText = "hello from an example".parse()?;
    let post = client.send(&board, client.new_post_id(), text).await?;
    println!("posted as number {} of {}", post.seq, post.board);

    // Without a cursor the board is followed from its end on.
    let mut follow = client.follow(vec![board], None);
    loop {
        match follow.next().await {
            FollowEvent::Connected { master } => println!("following at {master}"),
            FollowEvent::Event(StreamEvent::Post(post)) => {
                println!("{} {}: {}", post.seq, post.author.name.as_str(), post.text.as_str());
            }
            FollowEvent::Event(StreamEvent::Reset(reset)) => {
                println!("there is a gap ({}): read the board again", reset.reason);
            }
            FollowEvent::Event(_) => {}
            FollowEvent::Disconnected { master, why } => println!("left {master}: {why}"),
            FollowEvent::Ended { why } => return Err(why.into()),
        }
    }
}
