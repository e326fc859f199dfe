"""The triage page: what an analyst sees and does in a browser, server-rendered, without JavaScript.

* `access`: who is asking: log-in keys, sessions, a reverse proxy's word;
* `guard`: what every request must pass, and the headers of every answer;
* `routes`: which page is at which address;
* `queue_pages`, `alert_pages`, `account_pages`, `exception_pages`, `audit_pages`, `login_pages`: a file for each part;
* `serving`: what they share; `pages` and `words`: how it is shown.
"""
