"""What every robot and every policy must do, run against yours: pytest examples/test_own.py"""

import pytest
from own_policy import HomingConfig
from own_robot import CartConfig

from tactus import Policy, Robot
from tactus.testing import PolicyConformance, RobotConformance


class TestCart(RobotConformance):
    @pytest.fixture
    def robot(self) -> Robot:
        robot = CartConfig().make()
        robot.connect()
        return robot


class TestHoming(PolicyConformance):
    @pytest.fixture
    def policy(self) -> Policy:
        return HomingConfig().make()
