"""The tests, with a task of their own."""

from tests.toy import use_in_this_process_and_its_children

use_in_this_process_and_its_children()
