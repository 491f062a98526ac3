//! Certificates of a server: it is refused unless a trusted authority vouches for the name that it was
//! dialled by.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::*;
use crate::testing::certificates::Authority;

/// Host under which the tests dial a server.
const HOST: &str = "127.0.0.1";

/// Gives the server the certificate and key of these PEM texts, and starts it again.
async fn show(env: &Env, server: &mut Server, (certificate, key): &(String, String)) {
    let owner = std::fs::metadata(server.dir()).expect("a directory");
    for (name, text) in [("server.pem", certificate), ("server.key", key)] {
        let path = server.dir().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its own");
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("the same, or root");
    }
    server.restart(env).await;
}

/// Server that speaks TLS with this certificate.
async fn with_tls(env: &Env, shown: &(String, String)) -> Option<Server> {
    let mut server = Server::start(env, &["listen_addresses=127.0.0.1"]).await?;
    drop(opened(env, &server).await);
    let [certificate, key] = ["server.pem", "server.key"].map(|name| server.dir().join(name));
    let certificate = format!("ssl_cert_file={}", certificate.display());
    let key = format!("ssl_key_file={}", key.display());
    server.set(&["ssl=on", &certificate, &key]);
    show(env, &mut server, shown).await;
    Some(server)
}

/// URL on the server's port, for one who trusts this authority alone.
fn url(server: &Server, trusted: &Authority) -> String {
    let roots = server.dir().join("roots.pem");
    std::fs::write(&roots, trusted.certificate()).expect("written");
    format!(
        "postgres://chatchat@{HOST}:{}/postgres?sslmode=verify-full&sslrootcert={}\
         &options=-csearch_path%3Dchat",
        server.port(),
        roots.display()
    )
}

#[tokio::test]
async fn certificate_of_another_name_or_authority_is_refused_and_says_so() {
    let env = real_env();
    let ours = Authority::new("ours");
    let Some(mut server) = with_tls(&env, &ours.vouch_for(HOST)).await else { return };
    let limits = ServerLimits::new(PATIENT);
    let url = url(&server, &ours);
    let store = open(&env, address(&url), limits).await.expect("it is trusted");
    store.boards().await.expect("over TLS");

    let other_name = ours.vouch_for("db.example");
    let stranger = Authority::new("a stranger's").vouch_for(HOST);
    let impostor = Authority::new("ours").vouch_for(HOST);
    let cases = [
        (other_name, "certificate not valid for name \"127.0.0.1\""),
        (stranger, "invalid peer certificate: UnknownIssuer"),
        (impostor, "invalid peer certificate: BadSignature"),
    ];
    for (shown, want) in cases {
        show(&env, &mut server, &shown).await;
        // At the start an operator has to mend it.
        let refused = open(&env, address(&url), limits).await.map(drop);
        let Err(StoreError::Refused { why }) = refused else { panic!("{want}: {refused:?}") };
        assert!(why.contains(want), "{why}");
        assert!(
            why.starts_with(&format!("{HOST}:{}: ", server.port())),
            "it names the server: {why}"
        );
        // A store that was seen is away until it is mended.
        let away = async {
            loop {
                // A connection from before tells of its own end first.
                let error = store.boards().await.expect_err("no server is trusted");
                assert!(error.is_away(), "{error}");
                if error.to_string().contains(want) {
                    break error.away_reason();
                }
                env.sleep(Duration::from_millis(20)).await;
            }
        };
        let reason = env.timeout(PATIENT, away).await.expect("the reason names the certificate");
        assert_eq!(reason, Some(AwayReason::Failing), "{want}");
    }

    show(&env, &mut server, &ours.vouch_for(HOST)).await;
    store.boards().await.expect("it is trusted again");
}
