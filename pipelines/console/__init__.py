"""The console: pages of the service that people work in all day, made here, without a build step or a foreign host."""
