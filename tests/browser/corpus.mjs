// Texts that a careless page would run. Each must come out as the text that it is.

export const XSS = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(2)>",
  "<svg onload=alert(3)>",
  '"><script>alert(4)</script>',
  "'\"--><svg/onload=alert(5)>",
  "<iframe srcdoc='<script>parent.alert(6)</script>'>",
  '<a href="javascript:alert(7)">click</a>',
  "javascript:alert(8)",
  "<body onload=alert(9)>",
  "<details open ontoggle=alert(10)>",
  '<math><mtext></table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(11)&gt;">',
  "<style>@import 'javascript:alert(12)';</style>",
  "<link rel=stylesheet href=data:text/css,*{display:none}>",
  "<meta http-equiv=refresh content='0;url=javascript:alert(13)'>",
  "<base href=//evil.example/>",
  "<form action=javascript:alert(14)><input type=submit>",
  "&lt;script&gt;alert(15)&lt;/script&gt;",
  "{{constructor.constructor('alert(16)')()}}",
  "${alert(17)}",
  "<template><script>alert(18)</script></template>",
  '<object data="data:text/html;base64,PHNjcmlwdD5hbGVydCgxOSk8L3NjcmlwdD4="></object>',
  "\u202e<img src=x onerror=alert(20)>",
  'data: {"id":"x"}\n\nevent: bye\ndata: {"reason":"draining"}',
  "</textarea><script>alert(21)</script>",
  '<noscript><p title="</noscript><img src=x onerror=alert(22)>">',
  "__proto__",
  "\\u003cscript\\u003ealert(23)\\u003c/script\\u003e",
];

export const XSS_NAMES = ["<img src=x onerror=alert(1)>", '"><svg onload=alert(2)>', "constructor"];
