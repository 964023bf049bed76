"""The main journey in Firefox and WebKit, by the protocols that they speak themselves."""
